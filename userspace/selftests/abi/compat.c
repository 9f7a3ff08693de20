// SPDX-License-Identifier: GPL-2.0-only
/* Description: a 32-bit program uses an arena of a 64-bit kernel. */
#include "selftest.h"

FIXTURE(compat)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(compat)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(compat)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(compat, program_of_32_bits)
{
	char path[4096];
	const char *const argv[] = { path, NULL };
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 16);
	int status;

	ASSERT_LT(0, len);
	path[len] = 0;
	strcpy(strrchr(path, '/'), "/compat32");
	ASSERT_EQ(0, access(path, X_OK));
	status = program_run(argv);
	if (status == 127)
		SKIP(return, "this kernel runs no 32-bit programs");
	EXPECT_EQ(0, status) {
		TH_LOG("step %d of compat32 failed", status);
	}
}

TEST_HARNESS_MAIN
