#include <cotrain/log.h>
#include <cotrain/text.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 1024

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static pthread_once_t level_once = PTHREAD_ONCE_INIT;
static enum ct_log_level least_level = CT_LOG_INFO;

/* Held around use and exchange of the descriptor: a closed one may be another file's by then. */
static pthread_mutex_t place_lock = PTHREAD_MUTEX_INITIALIZER;
static int place = STDERR_FILENO;

static void read_level(void) {
    const char *wanted = getenv("COTRAIN_LOG");
    for (size_t i = 0; wanted != NULL && i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(wanted, level_names[i]) == 0) {
            least_level = (enum ct_log_level)i;
        }
    }
}

static void use_place(int fd) {
    pthread_mutex_lock(&place_lock);
    int old = place;
    place = fd;
    if (old != STDERR_FILENO) {
        close(old);
    }
    pthread_mutex_unlock(&place_lock);
}

void ct_log_to(const char *path) {
    if (path == NULL) {
        use_place(STDERR_FILENO);
        return;
    }
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int reason = errno;
    use_place(fd >= 0 ? fd : STDERR_FILENO);
    if (fd < 0) {
        ct_log(CT_LOG_ERROR, "log", "cannot open %s: %s; logging here", path, strerror(reason));
    }
}

/* Makes text one printable line. */
static void clean(char *text) {
    size_t length = strlen(text);
    for (size_t i = 0; i < length;) {
        struct ct_bytes rest = {.data = (const uint8_t *)text + i, .length = length - i};
        size_t step = ct_text_character(rest);
        if (step == 0) {
            text[i] = '?';
            step = 1;
        }
        i += step;
    }
}

void ct_log(enum ct_log_level level, const char *module, const char *format, ...) {
    int old_errno = errno;
    pthread_once(&level_once, read_level);
    if (level < least_level) {
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm parts;
    gmtime_r(&now.tv_sec, &parts);
    char date[32];
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    char text[LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    clean(text);
    char line[LINE_BYTES_MAX];
    int length = snprintf(line, sizeof line, "%s.%03ldZ %s %s %s", date, now.tv_nsec / 1000000,
                          level_names[level], module, text);
    size_t end = length < LINE_BYTES_MAX ? (size_t)length : LINE_BYTES_MAX - 1;
    line[end] = '\n';
    pthread_mutex_lock(&place_lock);
    /* Where the log itself cannot be written there is nobody left to tell. */
    ssize_t written = write(place, line, end + 1);
    (void)written;
    pthread_mutex_unlock(&place_lock);
    errno = old_errno;
}
