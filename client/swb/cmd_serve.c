/* serve: each request runs a program; more than --parallel at a time wait for their turn. */
#include "base/alloc.h"
#include "base/list.h"
#include "base/utf8.h"
#include "client/swb/link.h"
#include "client/swb/output.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARALLEL = 8, OUTPUT_MAX = 16 << 20 };

struct server {
    struct link link;
    struct list waiting, running; /* struct job */
    size_t running_count, parallel;
    struct event *children;
};

struct job {
    struct list link;
    struct server *server;
    struct swb_request *request;
    pid_t pid;
    struct bufferevent *in, *out, *err; /* pipes to and from the program */
    bool ended;                         /* the program did; its output may still come */
    int status;
};

static void start_waiting(struct server *server);

static void free_pipe(struct bufferevent **pipe)
{
    if (*pipe)
        bufferevent_free(*pipe);
    *pipe = NULL;
}

static void job_destroy(struct job *job)
{
    list_remove(&job->link);
    free_pipe(&job->in);
    free_pipe(&job->out);
    free_pipe(&job->err);
    mem_free(job);
}

/* What the program printed, without the last line break. */
static const char *take_output(struct bufferevent *pipe, size_t *len)
{
    struct evbuffer *input = bufferevent_get_input(pipe);
    const char *data = (const char *)evbuffer_pullup(input, -1);

    *len = evbuffer_get_length(input);
    if (*len && data[*len - 1] == '\n')
        --*len;
    return *len ? data : "";
}

static void refuse(struct job *job)
{
    char why[512];
    size_t len;
    const char *text = take_output(job->err, &len);
    const char *newline = len ? memrchr(text, '\n', len) : NULL;

    if (newline) {
        len -= (size_t)(newline + 1 - text);
        text = newline + 1;
    }
    if (len)
        snprintf(why, sizeof why, "%.*s", (int)len, text);
    else if (WIFSIGNALED(job->status))
        snprintf(why, sizeof why, "the program died of signal %d", WTERMSIG(job->status));
    else
        snprintf(why, sizeof why, "the program ended with exit code %d", WEXITSTATUS(job->status));
    swb_request_refuse(job->request, why);
}

static void answer(struct job *job)
{
    size_t len;
    const char *text = take_output(job->out, &len);
    enum swb_kind kind = args_has(job->server->link.args, OPT_DATA) ? SWB_JSON
                         : utf8_valid(text, len)                    ? SWB_TEXT
                                                                    : SWB_BINARY;
    int error = swb_request_reply(job->request, (struct swb_payload){kind, text, len});

    if (error && error != SWB_GONE)
        complain("an answer could not be sent: %s", swb_error_text(error));
}

/* The program ended, and so did its output. */
static void finish_when_done(struct job *job)
{
    struct server *server = job->server;

    if (!job->ended || bufferevent_get_enabled(job->out) & EV_READ ||
        bufferevent_get_enabled(job->err) & EV_READ)
        return;
    if (WIFEXITED(job->status) && WEXITSTATUS(job->status) == 0)
        answer(job);
    else
        refuse(job);
    job_destroy(job);
    server->running_count--;
    start_waiting(server);
}

static void on_read(struct bufferevent *pipe, void *data)
{
    struct job *job = data;

    if (evbuffer_get_length(bufferevent_get_input(pipe)) > OUTPUT_MAX)
        kill(job->pid, SIGTERM);
}

static void on_pipe_end(struct bufferevent *pipe, short what, void *data)
{
    struct job *job = data;

    (void)what;
    bufferevent_disable(pipe, EV_READ);
    finish_when_done(job);
}

static void on_written(struct bufferevent *pipe, void *data)
{
    struct job *job = data;

    (void)pipe;
    free_pipe(&job->in); /* the program sees the end */
}

static void on_input_broken(struct bufferevent *pipe, short what, void *data)
{
    (void)what;
    on_written(pipe, data);
}

static void on_cancel(struct swb_request *request, void *data)
{
    struct job *job = data;

    if (job->pid) {
        kill(job->pid, SIGTERM);
        return;
    }
    swb_request_refuse(request, "");
    job_destroy(job);
}

/* In the child. */
static void run_program(const struct job *job, int in, int out, int err)
{
    static const char *const kinds[] = {[SWB_TEXT] = "text", [SWB_BINARY] = "binary", [SWB_JSON] = "json"};
    const struct swb_message *message = swb_request_message(job->request);
    char **words = job->server->link.args->words;

    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    setenv("SWITCHBOARD_FROM", message->from ? message->from : "", 1);
    setenv("SWITCHBOARD_TO", message->to, 1);
    setenv("SWITCHBOARD_KIND", kinds[message->payload.kind], 1);
    signal(SIGPIPE, SIG_DFL);
    execvp(words[0], words);
    dprintf(STDERR_FILENO, "%s: %s\n", words[0], strerror(errno));
    _exit(127);
}

static struct bufferevent *open_pipe(struct job *job, int fd)
{
    if (evutil_make_socket_nonblocking(fd) != 0)
        return NULL;
    return bufferevent_socket_new(job->server->link.base, fd,
                                  BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
}

/* False: nothing was started. */
static bool spawn(struct job *job)
{
    int pipes[3][2];
    size_t made = 0;

    while (made < 3 && pipe2(pipes[made], O_CLOEXEC) == 0)
        made++;
    if (made == 3) {
        job->in = open_pipe(job, pipes[0][1]);
        job->out = open_pipe(job, pipes[1][0]);
        job->err = open_pipe(job, pipes[2][0]);
        job->pid = job->in && job->out && job->err ? fork() : -1;
        if (job->pid == 0)
            run_program(job, pipes[0][0], pipes[1][1], pipes[2][1]);
        close(pipes[0][0]);
        close(pipes[1][1]);
        close(pipes[2][1]);
        return job->pid > 0;
    }
    while (made-- > 0) {
        close(pipes[made][0]);
        close(pipes[made][1]);
    }
    return false;
}

static void start(struct job *job)
{
    const struct swb_payload *payload = &swb_request_message(job->request)->payload;

    if (!spawn(job)) {
        complain("no program could be started: %s", strerror(errno));
        swb_request_refuse(job->request, "no program could be started");
        job_destroy(job);
        return;
    }
    list_append(&job->server->running, &job->link);
    job->server->running_count++;
    bufferevent_setcb(job->in, NULL, on_written, on_input_broken, job);
    bufferevent_setcb(job->out, on_read, NULL, on_pipe_end, job);
    bufferevent_setcb(job->err, on_read, NULL, on_pipe_end, job);
    bufferevent_enable(job->out, EV_READ);
    bufferevent_enable(job->err, EV_READ);
    if (payload->len)
        bufferevent_write(job->in, payload->data, payload->len);
    else
        free_pipe(&job->in);
}

static void start_waiting(struct server *server)
{
    while (server->running_count < server->parallel && !list_empty(&server->waiting)) {
        struct job *job = container_of(server->waiting.next, struct job, link);
        list_remove(&job->link);
        start(job);
    }
}

static void on_request(struct swb_client *client, struct swb_request *request, void *data)
{
    struct server *server = data;
    struct job *job = mem_calloc(1, sizeof *job);

    (void)client;
    if (!job) {
        swb_request_refuse(request, "memory is short");
        return;
    }
    job->server = server;
    job->request = request;
    list_init(&job->link);
    list_append(&server->waiting, &job->link);
    swb_request_on_cancel(request, on_cancel, job);
    if (args_has(server->link.args, OPT_VERBOSE))
        print_message(server->link.args, swb_request_message(request));
    start_waiting(server);
}

static void on_child(evutil_socket_t number, short what, void *data)
{
    struct server *server = data;

    (void)number;
    (void)what;
    list_for_each_safe (link, &server->running) {
        struct job *job = container_of(link, struct job, link);
        if (!job->ended && waitpid(job->pid, &job->status, WNOHANG) == job->pid) {
            job->ended = true;
            finish_when_done(job);
        }
    }
}

static void end_jobs(struct server *server)
{
    list_for_each_safe (link, &server->running) {
        struct job *job = container_of(link, struct job, link);
        if (!job->ended)
            kill(job->pid, SIGTERM);
        swb_request_refuse(job->request, "the server is going away");
        job_destroy(job);
    }
}

int command_serve(const struct args *args)
{
    struct server server = {.link = {.lasting = true, .as_session = true, .data = &server}};
    struct link *link = &server.link;
    uint64_t parallel;
    int status = EXIT_USAGE;

    if (!args_number(args, OPT_PARALLEL, PARALLEL, &parallel))
        return status;
    server.parallel = parallel ? parallel : 1;
    list_init(&server.waiting);
    list_init(&server.running);
    if (link_open(link, args)) {
        server.children = evsignal_new(link->base, SIGCHLD, on_child, &server);
        if (!server.children || event_add(server.children, NULL) != 0)
            link_end(link, EXIT_ERROR);
        swb_client_serve(link->client, on_request, &server);
        status = link_run(link);
    } else {
        status = link->status;
    }
    end_jobs(&server);
    if (server.children)
        event_free(server.children);
    link_close(link);
    return status;
}
