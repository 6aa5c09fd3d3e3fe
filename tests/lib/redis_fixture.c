#include "tests/lib/redis_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PORT_ATTEMPTS = 5 };

/* A port that was free a moment ago; 0 when there is none. */
static int find_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0)
        port = ntohs(address.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

static void run_server(int port, int output, pid_t parent)
{
    char text[16];

    /* A parent that died before the next line took effect would leave the server behind. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    snprintf(text, sizeof text, "%d", port);
    dup2(output, STDOUT_FILENO);
    execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--loglevel", "notice", (char *)NULL);
    perror("redis-server");
    _exit(1);
}

/* Reads the server's log up to the line that says it serves; false when it ends before. */
static bool await_ready(int output)
{
    char log[16384];
    size_t len = 0;

    while (len + 1 < sizeof log) {
        ssize_t got = read(output, log + len, sizeof log - 1 - len);
        if (got <= 0)
            return false;
        len += (size_t)got;
        log[len] = '\0';
        if (strstr(log, "Ready to accept connections"))
            return true;
    }
    return false;
}

bool redis_fixture_restart(struct redis_fixture *redis)
{
    int ends[2];
    pid_t parent = getpid();

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    redis->pid = fork();
    if (redis->pid == 0) {
        close(ends[0]);
        run_server(redis->port, ends[1], parent);
    }
    close(ends[1]);
    redis->output = ends[0];
    if (redis->pid > 0 && await_ready(ends[0]))
        return true;
    redis_fixture_kill(redis);
    return false;
}

bool redis_fixture_start(struct redis_fixture *redis)
{
    for (int i = 0; i < PORT_ATTEMPTS; i++) {
        *redis = (struct redis_fixture){.port = find_port(), .output = -1};
        if (redis->port && redis_fixture_restart(redis))
            return true;
    }
    fprintf(stderr, "no redis-server could be started\n");
    return false;
}

void redis_fixture_kill(struct redis_fixture *redis)
{
    if (redis->pid > 0) {
        kill(redis->pid, SIGKILL);
        waitpid(redis->pid, NULL, 0);
        close(redis->output);
    }
    redis->pid = 0;
    redis->output = -1;
}

void redis_fixture_pause(struct redis_fixture *redis)
{
    int status;

    kill(redis->pid, SIGSTOP);
    waitpid(redis->pid, &status, WUNTRACED);
}

void redis_fixture_resume(struct redis_fixture *redis)
{
    kill(redis->pid, SIGCONT);
}
