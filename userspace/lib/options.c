// SPDX-License-Identifier: MIT
/* The environment, and the lines libxalloc writes to stderr. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "internal.h"
#include "os.h"

static const char *const no_yes[] = { "0", "1", NULL };
/* By enum xalloc_pages. */
static const char *const pages[] = { "huge", "huge_preferred", "small", NULL };

/* What XALLOC_OPTIONS knows: key=value, or "key" for "key=1". */
static const struct key {
	const char *name;
	size_t offset;            /* of a size_t in struct xl_options */
	const char *const *words; /* the value is the number of one of them; NULL: any number */
	const char *help;
} keys[] = {
	{ "verbose", offsetof(struct xl_options, verbose), no_yes,
	  "verbose=1       says on stderr why memory was refused, or comes in pieces" },
	{ "zero_on_free", offsetof(struct xl_options, zero_on_free), no_yes,
	  "zero_on_free=1  writes zeros over what is freed" },
	{ "canary", offsetof(struct xl_options, canary), no_yes,
	  "canary=1        finds writes past the size that was asked for, at free and realloc" },
	{ "leaks", offsetof(struct xl_options, leaks), no_yes,
	  "leaks=1         says on stderr at exit which blocks still live" },
	{ "trace", offsetof(struct xl_options, trace), NULL,
	  "trace=N         keeps who allocated each Nth block, and says so of those that live" },
	{ "pages", offsetof(struct xl_options, pages), pages,
	  "pages=WORD      memory of the default heap: huge, huge_preferred (if unset) or small" },
	{ "node", offsetof(struct xl_options, node), NULL,
	  "node=N          the NUMA node that the memory of the default heap comes from" },
	{ 0 },
};

bool xl_checks;

static void say(const char *format, va_list args)
{
	char line[512];
	int len = vsnprintf(line, sizeof(line), format, args);

	if (len < 0)
		return;
	if ((size_t)len > sizeof(line) - 1) {
		len = sizeof(line) - 1;
		line[len - 1] = '\n';
	}
	xl_os_say(line, len);
}

void xl_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

void xl_explain(const char *format, ...)
{
	struct xl_process *p = xl_process_peek();
	va_list args;

	/* A program that does not know of the library ends if there is no default heap. */
	if (!p || !(p->options.verbose || (XL_PRELOAD && !p->default_heap)))
		return;
	va_start(args, format);
	say(format, args);
	va_end(args);
}

/* Of glibc's ld.so: where the kernel has put argc, argv and the environment. */
extern const uintptr_t *__libc_stack_end __attribute__((weak));

/*
 * The environment while libc has not set environ yet, or NULL. Resolvers of IFUNCs and functions in
 * .preinit_array run so early, and may allocate.
 */
static char **early_environment(void)
{
	/* After clearenv() environ is NULL, too, but the name is set, as libc sets both at once. */
	if (environ || *program_invocation_name || !&__libc_stack_end || getauxval(AT_SECURE))
		return NULL;
	/* In a program without ld.so this is another part of the stack, with a zero there. */
	if (!__libc_stack_end[0])
		return NULL;
	return (char **)__libc_stack_end + 1 + __libc_stack_end[0] + 1;
}

/* As secure_getenv(), at any time. */
static const char *variable(const char *name)
{
	char **entry = early_environment();
	size_t len = strlen(name);

	if (!entry)
		return secure_getenv(name);
	for (; *entry; entry++)
		if (!strncmp(*entry, name, len) && (*entry)[len] == '=')
			return *entry + len + 1;
	return NULL;
}

/* Returns whether @text is a number of bytes with an optional suffix. */
static bool parse_bytes(const char *text, size_t *bytes)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	size_t n = 0;

	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *text - '0', &n))
			return false;
	if (*text) {
		suffix = strchr(suffixes, *text);
		if (!suffix || text[1] ||
		    __builtin_mul_overflow(n, (size_t)1024 << 10 * (suffix - suffixes), &n))
			return false;
	}
	*bytes = n;
	return true;
}

/* Reads @name into @bytes, whole segments, when it is set. */
static int read_bytes(const char *name, size_t *bytes, bool *is_set)
{
	const char *text = variable(name);

	*is_set = text;
	if (!text)
		return 0;
	if (!parse_bytes(text, bytes) || *bytes < XL_SEGMENT) {
		xl_say("xalloc: %s=%s is not a number of bytes of at least 2M (suffixes K, M, G, T)\n",
		       name, text);
		return -EINVAL;
	}
	*bytes -= *bytes % XL_SEGMENT;
	return 0;
}

static int read_backend(struct xl_options *options)
{
	const char *text = variable("XALLOC_BACKEND");

	if (!text || !strcmp(text, "device"))
		return 0;
	if (strcmp(text, "local")) {
		xl_say("xalloc: XALLOC_BACKEND=%s is neither device nor local\n", text);
		return -EINVAL;
	}
	options->local = true;
	return 0;
}

static void say_keys(void)
{
	const struct key *key;

	xl_say("xalloc: XALLOC_OPTIONS=key=value,... knows:\n");
	xl_say("  help            writes this list\n");
	for (key = keys; key->name; key++)
		xl_say("  %s\n", key->help);
}

/* Returns whether the @len bytes at @text are one of the words, or without words a number. */
static bool read_value(const char *const *words, const char *text, size_t len, size_t *n)
{
	for (*n = 0; words && words[*n]; ++*n)
		if (strlen(words[*n]) == len && !strncmp(words[*n], text, len))
			return true;
	if (words || !len || len > 9)
		return false;
	for (; len; len--, text++) {
		if (*text < '0' || *text > '9')
			return false;
		*n = *n * 10 + *text - '0';
	}
	return true;
}

/* Returns whether there is such a key, and such a value for it. */
static bool read_key(struct xl_options *options, const char *text, size_t len)
{
	size_t name_len = strcspn(text, "=,");
	const struct key *key;
	size_t *member;

	for (key = keys; key->name; key++)
		if (strlen(key->name) == name_len && !strncmp(text, key->name, name_len))
			break;
	if (!key->name)
		return false;
	member = (size_t *)((char *)options + key->offset);
	if (name_len < len)
		return read_value(key->words, text + name_len + 1, len - name_len - 1, member);
	*member = 1;
	return key->words == no_yes;
}

static int read_keys(struct xl_options *options)
{
	const char *key = variable("XALLOC_OPTIONS");
	size_t len;

	for (; key && *key; key += len + (key[len] == ',')) {
		len = strcspn(key, ",");
		if (len == 4 && !strncmp(key, "help", len)) {
			say_keys();
		} else if (!read_key(options, key, len)) {
			xl_say("xalloc: XALLOC_OPTIONS has no \"%.*s\"; XALLOC_OPTIONS=help lists its keys\n",
			       (int)len, key);
			return -EINVAL;
		}
	}
	return 0;
}

int xl_options_read(struct xl_options *options)
{
	size_t ram = xl_os_ram();
	int ret;

	*options = (struct xl_options){ .pages = XALLOC_PAGES_HUGE_PREFERRED, .node = SIZE_MAX };
	ret = read_backend(options);
	if (ret)
		return ret;
	options->limit_bytes = ram / 4;
	if (!options->local && !xl_os_memlock_exempt() && xl_os_memlock() < options->limit_bytes)
		options->limit_bytes = xl_os_memlock();
	options->limit_bytes -= options->limit_bytes % XL_SEGMENT;
	/* The kernel then refuses the first segment, and so says which limit it was. */
	if (!options->limit_bytes)
		options->limit_bytes = XL_SEGMENT;

	ret = read_bytes("XALLOC_LIMIT", &options->limit_bytes, &options->limit_is_set);
	if (!ret)
		ret = read_keys(options);
	xl_checks = options->zero_on_free || options->canary || options->trace;
	return ret;
}
