// SPDX-License-Identifier: GPL-2.0-only
/*
 * Process 1 of the guests of scripts/vm.
 *
 * Builds the root (this machine's files read-only, an overlay above them), loads
 * xalloc.ko, runs the command between the streams of the channel (vm-mux.h), kills
 * what the command left behind, unloads the module and reports the status.
 *
 * In QEMU it is /init of an initramfs and finds the host's files over 9p; in UML it is
 * started from the host's files themselves, on hostfs. The kernel command line names
 * the directory of this run (xalloc_vm_run=), which holds the file "config": records
 * key=value, each ended by a NUL, written by scripts/vm.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "vm-mux.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define GROUP "xalloc"
#define NAMES "/run/xalloc" /* where arenas have names */
#define CONFIG_MAX 65536

static struct mux mux;
static int winsize_fd = -1;
static uint32_t stdin_window = MUX_WINDOW_BYTES;

static struct {
	const char *cwd;
	const char *user;    /* NULL: root, with the caller's environment as it is */
	const char *build;   /* the directory that is written through */
	const char *module;  /* xalloc.ko */
	const char *modules; /* tree for /lib/modules/RELEASE, or NULL */
	bool tty;
	bool kmemleak;
	struct winsize winsize;
	char *args[CONFIG_MAX + 1];
	char *env[CONFIG_MAX + 1];
	int nr_args, nr_env;
} config;

static void log_line(const char *text)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char line[1200];

	/* Not dprintf(): it gives up on a file with an lseek() of its own kind. */
	snprintf(line, sizeof(line), "vm-init: %s\n", text);
	if (write(fd, line, strlen(line)) < 0)
		perror("vm-init: cannot write to the kernel's log");
	close(fd);
}

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
	struct pollfd nothing = { .fd = -1 };
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_line(text);
	sync();
	if (mux.handle) {
		mux_send(&mux, MUX_FAILED, 0, text, strlen(text));
		while (mux.nr_out && mux.fd >= 0)
			mux_wait(&mux, &nothing, -1);
		/* The host has all of it now, or soon; it ends the guest. */
		for (;;)
			pause();
	}
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void make_dir(const char *path)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		fail("cannot make the directory %s: %m", path);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags,
		     const char *options)
{
	if (mount(source, target, type, flags, options))
		fail("cannot mount %s (%s) at %s: %m", type, source, target);
}

static void insert_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("cannot open the module %s: %m", path);
	if (syscall(SYS_finit_module, fd, "", 0))
		fail("cannot load the module %s: %m", path);
	close(fd);
}

/* The modules of the initramfs, in the order of the names scripts/vm gave them. */
static void insert_boot_modules(void)
{
	struct dirent **entries;
	int nr = scandir("/modules", &entries, NULL, alphasort);
	char path[300];

	for (int i = 0; i < nr; i++) {
		if (entries[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/modules/%s", entries[i]->d_name);
		insert_module(path);
	}
}

/*
 * QEMU 10 can abort (iotlb_to_section()), or lose what another CPU writes to a device, while PCI
 * devices are given their addresses. So the kernel boots on one CPU.
 */
static void start_other_cpus(void)
{
	char path[64];
	int fd;

	for (int cpu = 1;; cpu++) {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			return;
		if (fd < 0 || write(fd, "1", 1) != 1)
			fail("cannot start CPU %d: %m", cpu);
		close(fd);
	}
}

/* Devices of virtio appear some time after their drivers are there. */
static int open_virtio_port(void)
{
	char path[300], name[32];

	for (int try = 0; try < 600; try++) {
		DIR *dir = opendir("/sys/class/virtio-ports");
		struct dirent *entry;

		while (dir && (entry = readdir(dir))) {
			int fd;
			ssize_t n;

			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name",
				 entry->d_name);
			fd = open(path, O_RDONLY);
			n = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);
			if (fd >= 0)
				close(fd);
			if (n <= 0 || strncmp(name, "xalloc\n", n))
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			closedir(dir);
			return open(path, O_RDWR | O_CLOEXEC);
		}
		if (dir)
			closedir(dir);
		usleep(50 * 1000);
	}
	errno = ENODEV;
	return -1;
}

/*
 * UML's serial line never recovers from being throttled (line_throttle() takes its
 * interrupt away for good), which happens with 128 bytes of n_tty's 4096 left.
 */
#define SERIAL_LINE_BYTES 3072

static int open_serial_line(void)
{
	struct termios raw;
	int fd = open("/dev/ttyS0", O_RDWR | O_CLOEXEC | O_NOCTTY);

	stdin_window = SERIAL_LINE_BYTES;
	if (fd >= 0 && !tcgetattr(fd, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(fd, TCSANOW, &raw);
	}
	return fd;
}

static void dump_blocked_tasks(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, "w", 1) != 1)
			log_line("cannot list the blocked tasks");
		close(fd);
	}
}

static void handle(enum mux_type type, const char *data, size_t len)
{
	switch (type) {
	case MUX_PING:
		mux_send(&mux, MUX_PONG, 0, NULL, 0);
		break;
	case MUX_WINSIZE:
		if (winsize_fd >= 0 && len == sizeof(struct winsize))
			ioctl(winsize_fd, TIOCSWINSZ, data);
		break;
	case MUX_DUMP:
		dump_blocked_tasks();
		break;
	default:
		break;
	}
}

static void set_config(char *key, char *value)
{
	if (!strcmp(key, "arg") && config.nr_args < CONFIG_MAX)
		config.args[config.nr_args++] = value;
	else if (!strcmp(key, "env") && config.nr_env < CONFIG_MAX)
		config.env[config.nr_env++] = value;
	else if (!strcmp(key, "cwd"))
		config.cwd = value;
	else if (!strcmp(key, "user"))
		config.user = value;
	else if (!strcmp(key, "build"))
		config.build = value;
	else if (!strcmp(key, "module"))
		config.module = value;
	else if (!strcmp(key, "modules"))
		config.modules = value;
	else if (!strcmp(key, "kmemleak"))
		config.kmemleak = true;
	else if (!strcmp(key, "tty"))
		config.tty = sscanf(value, "%hu %hu", &config.winsize.ws_row,
				    &config.winsize.ws_col) == 2;
	else
		fail("config: a record %s that is not known, or too many of them", key);
}

/* The text lives as long as the process: config points into it. */
static void read_config(const char *path)
{
	FILE *file = fopen(path, "re");
	char *record;
	size_t size;

	if (!file)
		fail("cannot open %s: %m", path);
	for (;;) {
		char *value;

		record = NULL;
		size = 0;
		if (getdelim(&record, &size, '\0', file) < 0)
			break;
		value = strchr(record, '=');
		if (!value)
			fail("config: a record without a value: %s", record);
		*value++ = '\0';
		set_config(record, value);
	}
	fclose(file);
	if (!config.cwd || !config.build || !config.module || !config.nr_args)
		fail("config: %s lacks a record", path);
}

/*
 * The overlay takes over as root by moving it over the old one, as switch_root does:
 * what was mounted before stays, out of reach.
 */
static void enter_root(bool uml)
{
	static const struct {
		const char *type, *target;
		unsigned long flags;
		const char *options;
		bool optional;
	} mounts[] = {
		{ "proc", "/proc", 0, NULL, false },
		{ "sysfs", "/sys", 0, NULL, false },
		{ "devtmpfs", "/dev", 0, NULL, false },
		{ "devpts", "/dev/pts", 0, "mode=620,gid=5,ptmxmode=666", false },
		{ "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", false },
		{ "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755", false },
		{ "cgroup2", "/sys/fs/cgroup", 0, NULL, false },
		{ "debugfs", "/sys/kernel/debug", 0, NULL, false },
		{ "tracefs", "/sys/kernel/tracing", 0, NULL, true },
		{ "hugetlbfs", "/dev/hugepages", 0, NULL, true },
	};
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
	};

	mount_at("scratch", "/tmp", "tmpfs", 0, "mode=755");
	make_dir("/tmp/upper");
	make_dir("/tmp/work");
	make_dir("/tmp/root");
	if (!uml)
		mount_at("root", "/host", "9p", MS_RDONLY,
			 "trans=virtio,version=9p2000.L,msize=512000,cache=loose");
	mount_at("root", "/tmp/root", "overlay", 0,
		 uml ? "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work" :
		       "lowerdir=/host,upperdir=/tmp/upper,workdir=/tmp/work");
	if (chdir("/tmp/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fail("cannot change to the new root: %m");

	umask(0);
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		/* Kernels without the file system have no directory for it in /sys. */
		if (mkdir(mounts[i].target, 0755) && errno != EEXIST && mounts[i].optional)
			continue;
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags,
			  mounts[i].options) &&
		    !mounts[i].optional)
			fail("cannot mount %s at %s: %m", mounts[i].type, mounts[i].target);
	}
	umask(022);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) && errno != EEXIST)
			fail("cannot make %s: %m", links[i][1]);
	make_dir("/run/lock");
}

/*
 * Let every user of the guest reach @dir: a clone in root's home is out of reach for
 * others. Done in the overlay, so that the host's directories stay as they are.
 */
static void open_way_to(const char *dir)
{
	char path[PATH_MAX];
	struct stat st;

	for (size_t len = 1; len < sizeof(path) && len <= strlen(dir); len++) {
		if (dir[len] && dir[len] != '/')
			continue;
		snprintf(path, sizeof(path), "%.*s", (int)len, dir);
		if (!stat(path, &st) && !(st.st_mode & 0001) &&
		    chmod(path, (st.st_mode & 07777) | 0001))
			fail("cannot open %s to all users: %m", path);
	}
}

static void mount_project(bool uml, const char *release)
{
	char path[300];

	open_way_to(config.build);
	open_way_to(config.cwd);
	if (uml)
		mount_at("none", config.build, "hostfs", 0, config.build);
	else
		mount_at("build", config.build, "9p", 0,
			 "trans=virtio,version=9p2000.L,msize=512000,cache=mmap");
	if (!config.modules)
		return;
	snprintf(path, sizeof(path), "/lib/modules/%s", release);
	make_dir("/lib/modules");
	make_dir(path);
	mount_at(config.modules, path, "none", MS_BIND, NULL);
}

static void bring_up_loopback(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr))
		fail("no loopback device: %m");
	ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr))
		fail("cannot bring up the loopback device: %m");
	close(fd);
}

/* What an ordinary user of Debian 12 has. */
static void set_limits(void)
{
	const struct rlimit memlock = { 8 << 20, 8 << 20 };
	const struct rlimit nofile = { 1024, 1 << 20 };

	if (setrlimit(RLIMIT_MEMLOCK, &memlock) || setrlimit(RLIMIT_NOFILE, &nofile))
		fail("cannot set the resource limits: %m");
}

static bool read_passwd(const char *name, struct passwd *found)
{
	FILE *file = fopen("/etc/passwd", "re");
	struct passwd *pw;

	if (!file)
		fail("cannot open /etc/passwd: %m");
	while ((pw = fgetpwent(file)) && strcmp(pw->pw_name, name))
		;
	if (pw)
		*found = *pw;
	/* Leaked on purpose: the strings of @found belong to it. */
	return pw;
}

/* First id from @from on that no user and no group has. */
static unsigned int free_id(unsigned int from)
{
	for (unsigned int id = from;; id++) {
		FILE *users = fopen("/etc/passwd", "re"), *groups = fopen("/etc/group", "re");
		struct passwd *pw;
		struct group *gr;

		if (!users || !groups)
			fail("cannot open /etc/passwd and /etc/group: %m");
		while ((pw = fgetpwent(users)) && pw->pw_uid != id)
			;
		while ((gr = fgetgrent(groups)) && gr->gr_gid != id)
			;
		fclose(users);
		fclose(groups);
		if (!pw && !gr)
			return id;
	}
}

static void append_line(const char *path, const char *format, ...)
{
	FILE *file = fopen(path, "ae");
	va_list args;

	va_start(args, format);
	if (!file || vfprintf(file, format, args) < 0 || fclose(file))
		fail("cannot add to %s: %m", path);
	va_end(args);
}

/* Makes the group if it is missing; returns its id. */
static gid_t group_with_member(const char *member)
{
	FILE *from = fopen("/etc/group", "re"), *to = fopen("/etc/group.new", "we");
	bool found = false;
	gid_t gid = 0;
	struct group *gr;

	if (!from || !to)
		fail("cannot rewrite /etc/group: %m");
	while ((gr = fgetgrent(from))) {
		const char *comma = "";

		fprintf(to, "%s:%s:%u:", gr->gr_name, gr->gr_passwd, gr->gr_gid);
		for (char **name = gr->gr_mem; *name; name++) {
			fprintf(to, "%s%s", comma, *name);
			comma = ",";
		}
		if (!strcmp(gr->gr_name, GROUP)) {
			found = true;
			gid = gr->gr_gid;
			if (member)
				fprintf(to, "%s%s", comma, member);
		}
		fprintf(to, "\n");
	}
	fclose(from);
	if (!found) {
		gid = free_id(900);
		fprintf(to, "%s:x:%u:%s\n", GROUP, gid, member ? member : "");
	}
	if (fclose(to) || chmod("/etc/group.new", 0644) || rename("/etc/group.new", "/etc/group"))
		fail("cannot rewrite /etc/group: %m");
	return gid;
}

static void create_user(const char *name)
{
	unsigned int id = free_id(1000);
	char home[300];

	append_line("/etc/passwd", "%s:x:%u:%u::/home/%s:/bin/bash\n", name, id, id, name);
	append_line("/etc/group", "%s:x:%u:\n", name, id);
	snprintf(home, sizeof(home), "/home/%s", name);
	make_dir("/home");
	make_dir(home);
	if (chown(home, id, id))
		fail("cannot give %s to its user: %m", home);
}

/* Loads xalloc.ko and does what the udev rule and the mount unit do. */
static void load_xalloc(gid_t gid)
{
	char options[32];

	insert_module(config.module);
	if (chown("/dev/xalloc", 0, gid) || chmod("/dev/xalloc", 0660))
		fail("%s is loaded, but there is no device: /dev/xalloc: %m", config.module);
	make_dir(NAMES);
	snprintf(options, sizeof(options), "mode=1770,gid=%u", gid);
	mount_at("xallocfs", NAMES, "xallocfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

static void become(const struct passwd *pw)
{
	FILE *file = fopen("/etc/group", "re");
	gid_t groups[64] = { pw->pw_gid };
	int nr = 1;
	struct group *gr;

	while (file && (gr = fgetgrent(file)))
		for (char **name = gr->gr_mem; *name; name++)
			if (!strcmp(*name, pw->pw_name) && gr->gr_gid != pw->pw_gid && nr < 64)
				groups[nr++] = gr->gr_gid;
	if (file)
		fclose(file);
	if (setgroups(nr, groups) || setgid(pw->pw_gid) || setuid(pw->pw_uid)) {
		dprintf(2, "vm: cannot become %s: %m\n", pw->pw_name);
		_exit(126);
	}
}

static void set_env(const char *key, const char *value)
{
	char *entry;

	for (int i = 0; i < config.nr_env; i++)
		if (!strncmp(config.env[i], key, strlen(key)) &&
		    config.env[i][strlen(key)] == '=') {
			config.env[i] = config.env[--config.nr_env];
			break;
		}
	if (config.nr_env == CONFIG_MAX || asprintf(&entry, "%s=%s", key, value) < 0)
		fail("the environment is too large");
	config.env[config.nr_env++] = entry;
	config.env[config.nr_env] = NULL;
}

static _Noreturn void run_command(const int fds[MUX_STREAMS], const struct passwd *pw)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	for (int i = 0; i < MUX_STREAMS; i++)
		dup2(fds[i], i);
	if (config.tty)
		ioctl(0, TIOCSCTTY, 0);
	if (pw)
		become(pw);
	if (chdir(config.cwd)) {
		dprintf(2, "vm: cannot change to %s: %m\n", config.cwd);
		_exit(126);
	}
	environ = config.env;
	execvp(config.args[0], config.args);
	dprintf(2, "vm: cannot run %s: %m\n", config.args[0]);
	_exit(errno == ENOENT ? 127 : 126);
}

static void open_pipes(int child[MUX_STREAMS])
{
	for (int i = 0; i < MUX_STREAMS; i++) {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC))
			fail("cannot make a pipe: %m");
		child[i] = ends[i == 0 ? 0 : 1];
		if (i == 0)
			mux_open_sink(&mux, i, ends[1], stdin_window);
		else
			mux_open_source(&mux, i, ends[0]);
	}
}

static void open_terminal(int child[MUX_STREAMS])
{
	int master = open("/dev/ptmx", O_RDWR | O_CLOEXEC | O_NOCTTY);
	const char *slave = ptsname(master);

	if (master < 0 || grantpt(master) || unlockpt(master) || !slave)
		fail("cannot make a terminal: %m");
	ioctl(master, TIOCSWINSZ, &config.winsize);
	for (int i = 0; i < MUX_STREAMS; i++) {
		child[i] = open(slave, O_RDWR | O_CLOEXEC | O_NOCTTY);
		if (child[i] < 0)
			fail("cannot open %s: %m", slave);
	}
	winsize_fd = master;
	mux_open_sink(&mux, 0, fcntl(master, F_DUPFD_CLOEXEC, 0), stdin_window);
	mux_open_source(&mux, 1, fcntl(master, F_DUPFD_CLOEXEC, 0));
}

/* Returns the status as a shell would. */
static uint32_t await_command(const struct passwd *pw)
{
	int child[MUX_STREAMS], status = 0;
	struct pollfd signals = { .events = POLLIN };
	bool running = true;
	sigset_t mask;
	pid_t pid;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals.fd < 0)
		fail("cannot wait for children: %m");

	if (config.tty)
		open_terminal(child);
	else
		open_pipes(child);
	/* So that the user can open them again by /dev/stdin and the like. */
	for (int i = 0; pw && i < MUX_STREAMS; i++)
		if (fchown(child[i], pw->pw_uid, config.tty ? 5 : pw->pw_gid))
			fail("cannot give the command its streams: %m");
	pid = fork();
	if (pid < 0)
		fail("cannot fork: %m");
	if (!pid)
		run_command(child, pw);
	for (int i = 0; i < MUX_STREAMS; i++)
		close(child[i]);

	while (running || mux.streams[1].open || mux.streams[2].open) {
		struct signalfd_siginfo info;
		int some;
		pid_t done;

		mux_wait(&mux, &signals, -1);
		if (!(signals.revents & POLLIN))
			continue;
		while (read(signals.fd, &info, sizeof(info)) > 0)
			;
		while ((done = waitpid(-1, &some, WNOHANG)) > 0) {
			if (done != pid)
				continue;
			running = false;
			status = some;
			/* Or its background processes keep the streams open for ever. */
			kill(-1, SIGKILL);
		}
	}
	close(signals.fd);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/*
 * With every process dead nothing may hold the module. What is freed late (a file's last reference,
 * RCU) is waited for, for a minute at most. Only a guest that fails waits that long.
 */
static void unload_xalloc(void)
{
	for (int try = 0; try < 600; try++) {
		umount(NAMES);
		if (!syscall(SYS_delete_module, "xalloc", O_NONBLOCK) || errno == ENOENT)
			return;
		usleep(100 * 1000);
	}
	fail("xalloc cannot be unloaded although no process is left: %m");
}

static void kmemleak(const char *what)
{
	int fd = open("/sys/kernel/debug/kmemleak", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		fail("kmemleak does not take \"%s\": %m", what);
	close(fd);
}

/*
 * What kmemleak finds goes to the log, where scripts/check-splats sees it. It looks
 * only at objects older than five seconds, and reports what two scans agree on. Left out is
 * what the module cannot have allocated: what the boot's own tasks did, numbers 0 and 1 before
 * this program, and what interrupts did. Linux 7.3 leaks one such object. In user-mode kernels
 * built by gcc 14 kmemleak reports 128 that are still in use: names and a buffer of serial lines.
 */
static void scan_for_leaks(void)
{
	char line[256], head[256] = "";
	bool is_left_out = false;
	FILE *report;

	sleep(6);
	kmemleak("scan");
	kmemleak("scan");
	report = fopen("/sys/kernel/debug/kmemleak", "re");
	if (!report)
		fail("cannot read what kmemleak found: %m");
	while (fgets(line, sizeof(line), report)) {
		line[strcspn(line, "\n")] = '\0';
		/* The second line of each object says whose it is. */
		if (!strncmp(line, "unreferenced object", strlen("unreferenced object"))) {
			strcpy(head, line);
			continue;
		}
		if (*head) {
			is_left_out =
				strstr(line, "comm \"swapper") || strstr(line, "comm \"hardirq\"");
			if (!is_left_out)
				log_line(head);
			*head = '\0';
		}
		if (!is_left_out)
			log_line(line);
	}
	fclose(report);
}

int main(void)
{
	const char *run = getenv("xalloc_vm_run");
	const char *engine = getenv("xalloc_vm_engine");
	bool uml = engine && !strcmp(engine, "uml");
	char release[128] = "", path[4200];
	struct pollfd nothing = { .fd = -1 };
	struct passwd pw;
	uint32_t status;
	gid_t gid;
	int fd;

	if (getpid() != 1 || !run || !engine) {
		fprintf(stderr, "vm-init is process 1 of a guest; scripts/vm starts it\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	/* Without a console the kernel starts us with no file open at all. */
	fd = open("/dev/kmsg", O_WRONLY);
	for (int i = 0; i < MUX_STREAMS; i++)
		dup2(fd, i);
	if (fd >= MUX_STREAMS)
		close(fd);
	if (!uml)
		insert_boot_modules();
	fd = uml ? open_serial_line() : open_virtio_port();
	if (fd < 0)
		fail("no channel to the host: %m");
	if (!uml)
		start_other_cpus();
	mux_init(&mux, fd, handle);
	mux_send(&mux, MUX_HELLO, 0, NULL, 0);

	enter_root(uml);
	snprintf(path, sizeof(path), "%s/config", run);
	read_config(path);
	fd = open("/proc/sys/kernel/osrelease", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, release, sizeof(release) - 1) <= 0)
		fail("cannot read the kernel's release: %m");
	close(fd);
	release[strcspn(release, "\n")] = '\0';
	mount_project(uml, release);
	bring_up_loopback();
	if (sethostname("xalloc-vm", strlen("xalloc-vm")))
		fail("cannot set the host name: %m");
	set_limits();

	if (config.user && !read_passwd(config.user, &pw)) {
		create_user(config.user);
		gid = group_with_member(config.user);
		if (!read_passwd(config.user, &pw))
			fail("cannot create the user %s", config.user);
	} else {
		gid = group_with_member(NULL);
	}
	if (config.user) {
		set_env("HOME", pw.pw_dir);
		set_env("USER", pw.pw_name);
		set_env("LOGNAME", pw.pw_name);
		set_env("SHELL", pw.pw_shell);
	}

	if (config.kmemleak)
		kmemleak("clear");
	load_xalloc(gid);
	status = await_command(config.user ? &pw : NULL);
	unload_xalloc();
	if (config.kmemleak)
		scan_for_leaks();
	sync();
	mux_send(&mux, MUX_STATUS, 0, &status, sizeof(status));
	for (;;)
		mux_wait(&mux, &nothing, -1);
}
