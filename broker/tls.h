/* TLS towards clients, by OpenSSL. */
#ifndef BROKER_TLS_H
#define BROKER_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A context with the certificate chain and the key of these PEM files. NULL on failure (logged). */
SSL_CTX *tls_server_context(const char *certificate, const char *key);

/* What became of a call; the numbers of bytes are positive. */
enum { TLS_ENDED = 0, TLS_FAILED = -1, TLS_WANTS_READ = -2, TLS_WANTS_WRITE = -3 };

/* Bytes, or one of the above. The error queue is empty afterwards. */
ssize_t tls_accept(SSL *tls, bool *http); /* 1: done; `*http`: it failed because the client speaks plain HTTP */
ssize_t tls_read(SSL *tls, void *out, size_t len);
ssize_t tls_write(SSL *tls, const void *data, size_t len);

/* Tells the other side that nothing more is sent (close_notify), if that can be done at once. */
void tls_end(SSL *tls);

#endif
