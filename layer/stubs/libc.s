# What the preload library needs of libc: names without versions, so that it loads with any libc.
# All of them are in glibc 2.17 and later and in musl; layer/tests/symbols.rs looks.
.globl __errno_location, bcmp, environ, getauxval, memcmp, memcpy, memmove, memset, strlen
__errno_location:
bcmp:
# Of the compiler's own parts, on aarch64.
getauxval:
memcmp:
memcpy:
memmove:
memset:
strlen:
.type __errno_location, %function
.type bcmp, %function
.type getauxval, %function
.type memcmp, %function
.type memcpy, %function
.type memmove, %function
.type memset, %function
.type strlen, %function
.data
.type environ, %object
.size environ, 8
environ:
.zero 8
.section .note.GNU-stack, "", %progbits
