// SPDX-License-Identifier: MIT
/* xallocctl: what the xalloc module says about itself, as lines of "name value" */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/xalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define DEVICE "/dev/xalloc"
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static const char usage[] =
	"Usage: xallocctl info|stat\n"
	"Print what the xalloc module says about itself, a name and a value a line.\n"
	"\n"
	"  info        version, sizes and features of the module\n"
	"  stat        what is alive: arenas, clients, pages, and their bytes\n"
	"  -h, --help  print this\n"
	"\n"
	"Exit status: 0, 1 when " DEVICE " cannot be asked, 2 for a bad command line.\n";

static void print(const char *name, unsigned long long value)
{
	printf("%s %llu\n", name, value);
}

static void print_hex(const char *name, unsigned long long value)
{
	printf("%s 0x%llx\n", name, value);
}

static int info(int fd)
{
	struct xalloc_ioc_info arg = { .size = sizeof(arg) };

	if (ioctl(fd, XALLOC_IOC_INFO, &arg) < 0)
		return -errno;
	print("abi_version", arg.abi_version);
	print("slice_bytes", arg.slice_bytes);
	print("segment_bytes", arg.segment_bytes);
	print("batch_max", arg.batch_max);
	print("arena_bytes_max", arg.arena_bytes_max);
	print_hex("features", arg.features);
	print_hex("unstable", arg.unstable);
	return 0;
}

static int stat(int fd)
{
	struct xalloc_ioc_stat arg = { .size = sizeof(arg) };

	if (ioctl(fd, XALLOC_IOC_STAT, &arg) < 0)
		return -errno;
	print("arenas", arg.arenas);
	print("clients", arg.clients);
	print("pages", arg.pages);
	print("granted_bytes", arg.granted_bytes);
	print("committed_bytes", arg.committed_bytes);
	print("pinned_bytes", arg.pinned_bytes);
	print("charged_bytes", arg.charged_bytes);
	print("reserved_bytes", arg.reserved_bytes);
	print("cold_bytes", arg.cold_bytes);
	print("pooled_bytes", arg.pooled_bytes);
	print("poisoned_bytes", arg.poisoned_bytes);
	print("exported_bytes", arg.exported_bytes);
	print("lazy_bytes", arg.lazy_bytes);
	return 0;
}

static const struct command {
	const char *name;
	int (*run)(int fd);
} commands[] = {
	{ "info", info },
	{ "stat", stat },
};

static int run(const struct command *command)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0) {
		const char *remedy = "";

		if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
			remedy = "; is the module xalloc loaded?";
		else if (errno == EACCES || errno == EPERM)
			remedy = "; are you in the group xalloc?";
		fprintf(stderr, "xallocctl: cannot open " DEVICE ": %s%s\n", strerror(errno),
			remedy);
		return 1;
	}
	ret = command->run(fd);
	if (ret) {
		fprintf(stderr, "xallocctl: %s: %s\n", command->name, strerror(-ret));
		return 1;
	}
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "xallocctl: cannot write: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c != 'h') {
			fputs(usage, stderr);
			return 2;
		}
		fputs(usage, stdout);
		return 0;
	}
	if (argc - optind == 1)
		for (i = 0; i < ARRAY_SIZE(commands); i++)
			if (!strcmp(argv[optind], commands[i].name))
				return run(&commands[i]);
	fputs(usage, stderr);
	return 2;
}
