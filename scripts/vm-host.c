// SPDX-License-Identifier: GPL-2.0-only
/*
 * vm-host [-t] DIR SECONDS SLOW ENGINE ARGUMENT...
 *
 * The host's end of the channel of scripts/vm: starts ENGINE (QEMU or UML) in DIR with
 * the channel as descriptor 3, its output in DIR/engine, and connects the guest's command
 * to its own stdin, stdout and stderr, with -t as a terminal. What became of the
 * guest goes to DIR/verdict, in one line:
 *
 *	status N	the command ended with status N (128 + signal if it was killed)
 *	signal N	we were told to end by signal N
 *	failed TEXT	there is no status: TEXT says why
 *
 * SECONDS is the most the command may take (0: no limit); SLOW is the factor by which
 * the kernel is slower than a stock one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "vm-mux.h"

/*
 * A guest that is alive boots in seconds and answers a ping in milliseconds, but it shares its
 * machine, which was seen not to run a guest's CPU for 157 seconds.
 */
#define BOOT_SECONDS 600
#define SILENCE_SECONDS 600
#define PING_SECONDS 5
/* For the guest to write to its log what hangs. */
#define DUMP_SECONDS 3
#define CHANNEL_FD 3

static struct mux mux;
static pid_t engine;
static const char *dir;
static bool raw;
static struct termios cooked;

static bool hello, answered;
static int status = -1;
static char failure[1024];

/*
 * Returns for how many seconds this program has run. The program calls this about once a second. A
 * gap counts as two seconds at most: in a longer one the whole machine was paused or busy, and the
 * guest could not answer either.
 */
static long seconds(void)
{
	static long long last, ran;
	struct timespec ts;
	long long now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
	if (last)
		ran += now - last < 2000 ? now - last : 2000;
	last = now;
	return ran / 1000;
}

static void end_engine(void)
{
	/* UML's processes are its children; all of them are in its group or become ours. */
	if (engine > 0) {
		kill(-engine, SIGKILL);
		kill(engine, SIGKILL);
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static _Noreturn void finish(const char *verdict, int number)
{
	char path[4200];
	FILE *file;

	end_engine();
	if (raw)
		tcsetattr(0, TCSADRAIN, &cooked);
	snprintf(path, sizeof(path), "%s/verdict", dir);
	file = fopen(path, "w");
	if (!file)
		exit(1);
	if (number >= 0)
		fprintf(file, "%s %d\n", verdict, number);
	else
		fprintf(file, "failed %s\n", verdict);
	exit(fclose(file) ? 1 : 0);
}

static void handle(enum mux_type type, const char *data, size_t len)
{
	uint32_t number;

	switch (type) {
	case MUX_HELLO:
		if (hello)
			snprintf(failure, sizeof(failure), "the guest booted again");
		hello = true;
		break;
	case MUX_PONG:
		answered = true;
		break;
	case MUX_FAILED:
		snprintf(failure, sizeof(failure), "%s", data);
		break;
	case MUX_STATUS:
		if (len == sizeof(number)) {
			memcpy(&number, data, len);
			status = number;
		}
		break;
	default:
		snprintf(failure, sizeof(failure), "the guest sent a frame of type %d", type);
	}
}

static void send_winsize(void)
{
	struct winsize size;

	if (!ioctl(0, TIOCGWINSZ, &size))
		mux_send(&mux, MUX_WINSIZE, 0, &size, sizeof(size));
}

static void start_engine(char **argv, int channel, const sigset_t *mask)
{
	const struct rlimit no_core = { 0, 0 };
	char path[4200];
	int null, out;

	engine = fork();
	if (engine < 0) {
		perror("vm-host: fork");
		exit(1);
	}
	if (engine) {
		setpgid(engine, engine);
		return;
	}
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_UNBLOCK, mask, NULL);
	signal(SIGPIPE, SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	snprintf(path, sizeof(path), "%s/engine", dir);
	out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
	null = open("/dev/null", O_RDONLY);
	/* UML leaves files where it runs, which must have a short name. */
	if (out < 0 || null < 0 || chdir(dir))
		_exit(127);
	/* The numbers may overlap: first all of them out of the way. */
	channel = fcntl(channel, F_DUPFD, 10);
	out = fcntl(out, F_DUPFD, 10);
	null = fcntl(null, F_DUPFD, 10);
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	dup2(channel, CHANNEL_FD);
	closefrom(CHANNEL_FD + 1);
	execvp(argv[0], argv);
	dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static bool engine_ended(void)
{
	pid_t done;

	while ((done = waitpid(-1, NULL, WNOHANG)) > 0)
		if (done == engine)
			engine = 0;
	return !engine;
}

/* Takes what a guest that failed or ended has already sent. */
static void drain(void)
{
	struct pollfd nothing = { .fd = -1 };
	long end = seconds() + 2;

	while (seconds() < end && (mux.fd >= 0 || mux.streams[1].nr || mux.streams[2].nr))
		mux_wait(&mux, &nothing, 200);
}

static void make_raw(void)
{
	struct termios t;

	if (tcgetattr(0, &cooked))
		return;
	t = cooked;
	cfmakeraw(&t);
	raw = !tcsetattr(0, TCSADRAIN, &t);
}

int main(int argc, char **argv)
{
	long limit, slow, began, pinged, heard;
	struct pollfd signals = { .events = POLLIN };
	bool tty = argc > 1 && !strcmp(argv[1], "-t");
	bool streams = false, dumped = false;
	int sockets[2];
	sigset_t mask;

	argc -= tty;
	argv += tty;
	if (argc < 5) {
		fprintf(stderr, "usage: vm-host [-t] DIR SECONDS SLOW ENGINE ARGUMENT...\n");
		return 2;
	}
	dir = argv[1];
	limit = atol(argv[2]);
	slow = atol(argv[3]);

	/* If scripts/vm is killed so that it cannot tell us, the guest must end as well. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGQUIT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGWINCH);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	/* A shell starts what it runs in the background with these ignored. */
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals.fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets)) {
		perror("vm-host");
		return 1;
	}
	mux_init(&mux, sockets[0], handle);
	start_engine(argv + 4, sockets[1], &mask);
	close(sockets[1]);

	began = seconds();
	pinged = began;
	heard = began;
	for (;;) {
		struct signalfd_siginfo info;
		long now;

		mux_wait(&mux, &signals, 1000);
		while (signals.revents & POLLIN && read(signals.fd, &info, sizeof(info)) > 0) {
			if (info.ssi_signo == SIGWINCH)
				send_winsize();
			else if (info.ssi_signo != SIGCHLD)
				finish("signal", info.ssi_signo);
		}
		if (hello && !streams) {
			streams = true;
			began = seconds();
			heard = began;
			mux_open_source(&mux, 0, 0);
			mux_open_sink(&mux, 1, 1, MUX_WINDOW_BYTES);
			mux_open_sink(&mux, 2, 2, MUX_WINDOW_BYTES);
			if (tty)
				make_raw();
		}
		if (status >= 0 && !mux.streams[1].nr && !mux.streams[2].nr)
			finish("status", status);
		if (status >= 0)
			continue;
		if (failure[0]) {
			drain();
			finish(failure, -1);
		}
		if (engine_ended()) {
			drain();
			if (status < 0 && !failure[0])
				finish("the guest ended without a status of the command", -1);
			continue;
		}

		now = seconds();
		if (answered) {
			answered = false;
			heard = now;
		}
		if (hello && now - pinged >= PING_SECONDS) {
			pinged = now;
			mux_send(&mux, MUX_PING, 0, NULL, 0);
		}
		if (!hello && now - began > BOOT_SECONDS * slow)
			finish("the guest did not boot in time", -1);
		if (hello && now - heard > SILENCE_SECONDS * slow)
			finish("the guest stopped: it does not answer", -1);
		if (!hello || !limit)
			continue;
		if (now - began >= limit && !dumped) {
			dumped = true;
			mux_send(&mux, MUX_DUMP, 0, NULL, 0);
		}
		if (now - began < limit + DUMP_SECONDS)
			continue;
		if (now - heard > 3 * PING_SECONDS * slow)
			finish("timeout: the guest stopped, it does not answer", -1);
		finish("timeout: the command is still running", -1);
	}
}
