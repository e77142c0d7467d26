"""What Intel's manual defines (SDM volume 3D, "Intel Software Guard Extensions"): structures, flags, leaves, errors.

No behaviour. Table numbers are those of the edition of December 2023 (chapters 36 to 40). Members are named as in
Linux's ``asm/sgx.h`` where it has them, else as in the manual. The C side writes the same layouts down by itself
(``native/include/sgx_arch.h``); ``tests/isa/test_structures.py`` compares the two.
"""
