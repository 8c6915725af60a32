/* Assertions hold what we promise ourselves, in every build; what others send is never asserted. */
#ifndef COTRAIN_ASSERT_H
#define COTRAIN_ASSERT_H

/* Prints file, line and the expression to standard error and aborts. */
_Noreturn void ct_assert_failed(const char *file, int line, const char *expression);

#define CT_ASSERT(expression)                                                                      \
    ((expression) ? (void)0 : ct_assert_failed(__FILE__, __LINE__, #expression))

#endif
