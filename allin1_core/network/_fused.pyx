# cython: language_level=3
def instruction_set():
    return ""
