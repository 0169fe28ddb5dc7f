"""Instruction sets: what the compiled kernels are compiled for, and which of them run here.

``dispatch.h`` knows the sets, ``targets.h`` compiles a header of kernels once for each in a namespace of its own, and
``vectors.h`` is what the kernels share there. ``instruction_sets`` says which sets run on this processor.
"""
