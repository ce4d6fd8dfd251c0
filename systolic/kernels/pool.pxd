cdef extern from "kernels/pool.h" nogil:
    ctypedef void (*PoolTask)(void *context, Py_ssize_t number, int worker) noexcept nogil
    int pool_hire(Py_ssize_t workers)
    void pool_share(PoolTask task, void *context, Py_ssize_t count, int workers, bint is_long)
    int pool_helpers()
    void pool_set_cores(int cores)
    void pool_forget()
