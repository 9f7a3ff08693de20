# SPDX-License-Identifier: GPL-2.0-only
#
# Forwards only: the module, user space and the guests are built in worlds of their own (Kbuild,
# userspace/Makefile, scripts/) that must not share flags. What is built lies under build/.

KERNEL ?=
export KERNEL LONG FILE HERE FORCE CHANGED

.PHONY: all module lib selftests run check kunit kselftest check-lib fuzz bench bench-heap bench-placement \
	check-debug check-gates samples-check lint deps load unload install uninstall install-module uninstall-module \
	deb clean help

# Where the headers of the running kernel are missing, the module is left out, because headers of another kernel
# would have to be fetched.
all: lib
	@if [ -n "$(KERNEL)" ] || [ -d /lib/modules/$$(uname -r)/build ]; then \
		$(MAKE) --no-print-directory module; \
	else \
		scripts/module here 2>&1 | sed 's/^module: /&left out: /' >&2; \
	fi

module:
	@scripts/module $(or $(KERNEL),here)

lib:
	@scripts/as-owner $(MAKE) --no-print-directory -C userspace

selftests:
	@scripts/as-owner $(MAKE) --no-print-directory -C userspace lib selftests

run:
	@scripts/run

check:
	@scripts/check

check-debug:
	@scripts/kselftest --debug $(KERNEL)

kunit:
	@scripts/kunit $(KERNEL)

kselftest:
	@scripts/kselftest $(KERNEL)

check-lib:
	@scripts/check-lib

fuzz:
	@scripts/fuzz

bench:
	@scripts/bench

bench-placement:
	@scripts/bench-placement

check-gates:
	@scripts/check-gates

samples-check:
	@scripts/tests/samples $(KERNEL)

bench-heap:
	@scripts/bench-heap

lint:
	@scripts/lint

deps:
	@scripts/deps

# In this order: a line that begins with "load" is a directive to make.
unload load:
	@scripts/load $@

install uninstall:
	@$(MAKE) --no-print-directory -C userspace $@

install-module uninstall-module:
	@scripts/install-module $(@:-module=)

deb:
	@scripts/deb

clean:
	@rm -rf build

help:
	@echo 'Build:'
	@echo '  all (default)   - lib, and module if the headers of the running kernel are installed'
	@echo '  lib             - libxalloc, tools and samples: build/lib, build/bin'
	@echo '  module          - xalloc.ko for the running kernel (build/here), whose headers it needs;'
	@echo '                    KERNEL=6.12 for a kernel of the guests (build/6.12), which is fetched'
	@echo '  selftests       - the programs of userspace/selftests (build/selftests), for scripts/vm;'
	@echo '                    fetches the source of a kernel'
	@echo '  clean           - remove build/'
	@echo ''
	@echo 'Use:'
	@echo '  run             - boot a guest, copy a file through a pinned arena, print what that gains'
	@echo '                    FILE=path copies another file; HERE=1 runs on this machine, after make load'
	@echo '  load, unload    - put the module into the running kernel, or take it out (root); unload refuses'
	@echo '                    while anything would be lost: FORCE=1 loses arenas that no process has'
	@echo '  install         - libxalloc, its headers, libxalloc.pc, man pages and xalloc.py, below PREFIX=/usr/local'
	@echo '                    (root), or below DESTDIR for a package; uninstall undoes it'
	@echo '  install-module  - the module, for the running kernel or KVER=VERSION; udev rule, group, list of modules to'
	@echo '                    load and mount unit, below PREFIX=/usr/local (root), or below DESTDIR; DKMS=1 has DKMS'
	@echo '                    build the module; uninstall-module undoes it'
	@echo '  deb             - the Debian packages, in build/deb; scripts/deb-check tries them in new roots'
	@echo '  deps            - list the Debian packages that all this needs, with their size'
	@echo ''
	@echo 'Test:'
	@echo '  check           - every test, in the short size; LONG=1 for the long one; CHANGED=REV runs'
	@echo '                    only the parts that a change since the commit REV can turn red'
	@echo '  check-debug     - selftests and library tests on a kernel with KASAN, lockdep and kmemleak; KERNEL as below'
	@echo '  check-gates     - plant faults and see that each turns its command red'
	@echo '  kunit           - KUnit suites in UML; KERNEL=6.12 for one kernel, of those in scripts/kernel.d/list'
	@echo '  kselftest       - selftests on the stock kernels in QEMU; KERNEL as above'
	@echo '  check-lib       - libxalloc here, on its local backend; plain, with ASan and UBSan, with TSan'
	@echo '  samples-check   - samples of io_uring and RDMA in a guest, data compared; KERNEL as above'
	@echo '  bench           - libxalloc beside mimalloc 2 and 3, jemalloc, tcmalloc, glibc, on this machine'
	@echo '  fuzz            - placement and libxalloc under libFuzzer, 8,000 inputs each; LONG=1: 10 minutes'
	@echo '  bench-placement - instructions of grant and free in small and in large arenas'
	@echo '  bench-heap      - in-kernel heaps beside SLUB, on the stock 6.12 kernel in QEMU'
	@echo '  lint            - warnings of compilers, sparse, checkpatch, clang-format, shellcheck, codespell'
