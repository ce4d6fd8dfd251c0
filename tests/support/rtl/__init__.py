"""The RTL in systolic/rtl/verilog under its simulators."""
