cdef extern from "kernels/spin.h" nogil:
    long long spin_clock()
