// Makes one system call for each argument `NUMBER,ARG,...` and prints for each what it returned, or its error number as
// `-ERRNO`. `x` before the number: by the 32-bit interface of x86_64, where the call is one of i386.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long foreign(long number, const long *args) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(args[0]), "c"(args[1]), "d"(args[2]), "S"(args[3]), "D"(args[4])
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    return result;
#else
    return -ENOSYS;
#endif
}

int main(int count, char **words) {
    for (int index = 1; index < count; index++) {
        char *word = words[index];
        int is_foreign = *word == 'x';
        long args[7] = {0};
        word += is_foreign;
        for (int field = 0; field < 7 && word; field++) {
            args[field] = (long)strtoul(word, NULL, 0);
            word = strchr(word, ',');
            word = word ? word + 1 : NULL;
        }
        pid_t self = getpid();
        long result;
        if (is_foreign) {
            result = foreign(args[0], args + 1);
        } else {
            result = syscall(args[0], args[1], args[2], args[3], args[4], args[5], args[6]);
            if (result == -1) result = -errno;
        }
        // A call that makes a process has made one.
        if (getpid() != self) _exit(0);
        printf("%ld\n", result);
        fflush(stdout);
    }
    return 0;
}
