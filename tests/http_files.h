/* A small HTTP server on loopback that serves the files below a directory, in a thread. */
#ifndef TESTS_HTTP_FILES_H
#define TESTS_HTTP_FILES_H

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct http_files {
    const char *roots[2]; /* asked in turn */
    int listener;
    char url[64];
    pthread_t thread;
    atomic_uint requests;
};

static inline void http_files_answer(struct http_files *server, int fd) {
    char request[2048];
    size_t have = 0;
    while (have < sizeof request - 1) {
        ssize_t n = recv(fd, request + have, sizeof request - 1 - have, 0);
        if (n <= 0) {
            return;
        }
        have += (size_t)n;
        request[have] = '\0';
        if (strstr(request, "\r\n\r\n") != NULL) {
            break;
        }
    }
    atomic_fetch_add(&server->requests, 1);
    char name[256] = "";
    if (sscanf(request, "GET /%255s", name) != 1 || strstr(name, "..") != NULL) {
        return;
    }
    FILE *file = NULL;
    for (int i = 0; i < 2 && file == NULL && server->roots[i] != NULL; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", server->roots[i], name);
        file = fopen(path, "rb");
    }
    static const char missing[] =
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if (file == NULL) {
        (void)!send(fd, missing, sizeof missing - 1, MSG_NOSIGNAL);
        return;
    }
    static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    (void)!send(fd, head, sizeof head - 1, MSG_NOSIGNAL);
    char block[65536];
    size_t n = 0;
    while ((n = fread(block, 1, sizeof block, file)) > 0) {
        (void)!send(fd, block, n, MSG_NOSIGNAL);
    }
    fclose(file);
}

static inline void *http_files_main(void *user) {
    struct http_files *server = user;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        http_files_answer(server, fd);
        shutdown(fd, SHUT_WR);
        close(fd);
    }
}

/* Returns 0, or −1 when the system does not let it. */
static inline int http_files_start(struct http_files *server, const char *first,
                                   const char *second) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    memset(server, 0, sizeof *server);
    server->roots[0] = first;
    server->roots[1] = second;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (server->listener < 0 || bind(server->listener, (struct sockaddr *)&address, length) != 0 ||
        listen(server->listener, 16) != 0 ||
        getsockname(server->listener, (struct sockaddr *)&address, &length) != 0) {
        return -1;
    }
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    return pthread_create(&server->thread, NULL, http_files_main, server);
}

static inline void http_files_stop(struct http_files *server) {
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

#endif
