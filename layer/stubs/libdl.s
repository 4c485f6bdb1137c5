# In libdl before glibc 2.34; later versions and musl have it in libc, and a libdl by that name.
.globl dlsym
.type dlsym, %function
dlsym:
.section .note.GNU-stack, "", %progbits
