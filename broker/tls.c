#include "broker/tls.h"

#include "base/log.h"

#include <limits.h>
#include <openssl/err.h>
#include <string.h>

static const unsigned char http_1_1[] = "\x08http/1.1";

/* Who offers several protocols gets HTTP/1.1, the only one that WebSockets are served over here. */
static int select_protocol(SSL *tls, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                           unsigned offered_len, void *data)
{
    unsigned char *selected;

    (void)tls;
    (void)data;
    if (SSL_select_next_proto(&selected, out_len, http_1_1, sizeof http_1_1 - 1, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = selected;
    return SSL_TLSEXT_ERR_OK;
}

static void report(const char *what, const char *file)
{
    char text[256];
    unsigned long error = ERR_get_error();

    ERR_error_string_n(error, text, sizeof text);
    log_error("TLS can't be served", log_str("reason", what), log_str("file", file), log_str("openssl", text));
    ERR_clear_error();
}

SSL_CTX *tls_server_context(const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context) {
        report("no context", certificate);
        return NULL;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* What is written again after a full socket may lie elsewhere; and an idle connection keeps no buffers. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        report("the certificate can't be used", certificate);
    else if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        report("the key can't be used", key);
    else if (SSL_CTX_check_private_key(context) != 1)
        report("the key doesn't belong to the certificate", key);
    else
        return context;
    SSL_CTX_free(context);
    return NULL;
}

static ssize_t outcome(const SSL *tls, int result)
{
    int error = result > 0 ? SSL_ERROR_NONE : SSL_get_error(tls, result);

    ERR_clear_error();
    switch (error) {
    case SSL_ERROR_NONE:
        return result;
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_ENDED;
    default:
        return TLS_FAILED;
    }
}

static int capped(size_t len)
{
    return len > INT_MAX ? INT_MAX : (int)len;
}

ssize_t tls_accept(SSL *tls, bool *http)
{
    ERR_clear_error();
    int result = SSL_accept(tls);
    *http = result <= 0 && ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
    return outcome(tls, result);
}

ssize_t tls_read(SSL *tls, void *out, size_t len)
{
    ERR_clear_error();
    return outcome(tls, SSL_read(tls, out, capped(len)));
}

ssize_t tls_write(SSL *tls, const void *data, size_t len)
{
    ERR_clear_error();
    return outcome(tls, SSL_write(tls, data, capped(len)));
}

void tls_end(SSL *tls)
{
    if (SSL_is_init_finished(tls))
        SSL_shutdown(tls);
    ERR_clear_error();
}
