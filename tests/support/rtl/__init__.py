"""The RTL in tests/rtl under its simulators."""
