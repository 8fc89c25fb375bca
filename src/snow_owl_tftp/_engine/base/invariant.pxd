# What must hold: a debug build that finds it broken says which and aborts; a release build does not look.

cdef extern from * nogil:
    """
    #ifdef SNOW_OWL_DEBUG
    #include <stdio.h>
    #include <stdlib.h>
    #define OWL_INVARIANT(what) \\
        do { if (!(what)) { fprintf(stderr, "invariant broken: %s\\n", #what); abort(); } } while (0)
    #else
    #define OWL_INVARIANT(what) ((void)0)
    #endif
    """
    void OWL_INVARIANT(bint)
