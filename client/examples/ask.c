/* A backend asks another server's session, and returns the answer: no polling, no cache between, no sleep.
 *
 *     ask [URL [SESSION [CALLS]]]
 *
 * Each question is another one and its answer is checked: it must be the question with "echo: " before it, as serve.c
 * and `swb serve` with `sed 's/^/echo: /'` give it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <switchboard.h>

/* What the caller of a backend wants: question in, answer out. False: `client` knows why. */
static bool get_access(struct swb_client *client, const char *session, const char *question, char *answer,
                       size_t size)
{
    char address[300];
    struct swb_reply reply;

    snprintf(address, sizeof address, "session:%s", session);
    if (swb_client_request(client, address, swb_text(question), 5000, &reply) != SWB_OK)
        return false;
    snprintf(answer, size, "%s", (const char *)reply.payload.data);
    swb_reply_free(&reply);
    return true;
}

static int ask_all(struct swb_client *client, const char *session, long calls)
{
    char question[64], expected[80], answer[80];

    for (long i = 1; i <= calls; i++) {
        snprintf(question, sizeof question, "question %ld", i);
        snprintf(expected, sizeof expected, "echo: %s", question);
        if (!get_access(client, session, question, answer, sizeof answer)) {
            fprintf(stderr, "call %ld: %s\n", i, swb_client_problem(client));
            return EXIT_FAILURE;
        }
        if (strcmp(answer, expected) != 0) {
            fprintf(stderr, "call %ld: expected \"%s\", got \"%s\"\n", i, expected, answer);
            return EXIT_FAILURE;
        }
    }
    printf("%ld calls, each answered right\n", calls);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : NULL; /* SWITCHBOARD_URL */
    const char *session = argc > 2 ? argv[2] : "userSever_8080";
    long calls = argc > 3 ? strtol(argv[3], NULL, 10) : 1000;
    struct swb_client *client;

    signal(SIGPIPE, SIG_IGN);
    int error = swb_open(url, &client);
    if (error) {
        fprintf(stderr, "no connection: %s\n", swb_error_text(error));
        return EXIT_FAILURE;
    }
    int status = ask_all(client, session, calls);
    swb_close(client);
    return status;
}
