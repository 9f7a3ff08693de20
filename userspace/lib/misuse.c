// SPDX-License-Identifier: MIT
/*
 * What is said of a misuse before the program is aborted: to its own handler, or on stderr.
 *
 * All locks are let go first, and what was misused is as it was, so a handler may call the
 * library, and may leave by longjmp().
 */
#include <stdio.h>
#include <stdlib.h>

#include "misuse.h"
#include "os.h"
#include "page.h"

static void (*_Atomic handler)(const struct xalloc_misuse *misuse);

void xalloc_set_misuse_handler(void (*new_handler)(const struct xalloc_misuse *misuse))
{
	atomic_store(&handler, new_handler);
}

/* Where a pointer is, in words, when the lock is gone. */
struct place {
	char text[64];
	size_t block_bytes; /* 0: of no block */
	const void *page;
};

/* Of a verdict about a page, whose bin is locked: unlocks it. */
static struct place unlock(struct xl_where *where, enum xl_verdict verdict)
{
	uintptr_t page = xl_page_address(where->heap, where->page) + where->heap->arena->shift;
	struct place place = { .page = (void *)page };
	bool is_large = where->page->cls == XL_CLASS_LARGE;
	size_t bytes = is_large && !where->extent ? 0 : xl_block_bytes(where);

	if (verdict != XL_NO_BLOCK && (!is_large || where->extent->used))
		place.block_bytes = bytes;
	if (is_large)
		snprintf(place.text, sizeof(place.text), "%s of %zu bytes",
			 place.block_bytes ? "a large block" : "free memory", bytes);
	else
		snprintf(place.text, sizeof(place.text), "%s of size class %zu",
			 place.block_bytes ? "a block" : "the rest of a slab", bytes);
	xl_where_unlock(where);
	return place;
}

/* The handler may never come back. */
static void end_flight(const struct xl_where *where)
{
	if (where->flies)
		xl_flight_end(where->process);
}

static _Noreturn void stop(const char *call, const void *ptr, const struct place *place,
			   const char *message)
{
	static atomic_flag aborting = ATOMIC_FLAG_INIT;
	struct xalloc_misuse misuse = {
		.size = sizeof(misuse),
		.call = call,
		.ptr = ptr,
		.block_bytes = place->block_bytes,
		.page = place->page,
		.message = message,
	};
	void (*own)(const struct xalloc_misuse *misuse) = atomic_load(&handler);
	int i;

	if (own)
		own(&misuse);
	/* What one thread says is enough; unless it lives on: SIGABRT can be survived. */
	for (i = 0; atomic_flag_test_and_set(&aborting) && i < 100; i++)
		xl_os_sleep(10);
	xl_say("%s\n", message);
	abort();
}

void xl_misuse(const char *call, const void *ptr, enum xl_verdict verdict, struct xl_where *where)
{
	static const char *const what[] = {
		[XL_INTERIOR] = "inside a block, not its start",
		[XL_FREED] = "is free already (double free)",
		[XL_INTERIOR_FREED] = "inside a free block",
		[XL_NO_BLOCK] = "where no block can be",
		[XL_NO_PAGE] =
			"no block is there: never given out, or freed and its page given back",
		[XL_FOREIGN] = "not an address of xalloc",
		[XL_INHERITED] = "a block of the parent, which a forked child does not have",
	};
	struct place place = { .block_bytes = 0 };
	size_t inside = where->inside;
	char message[256];

	end_flight(where);
	if (verdict > XL_NO_BLOCK) {
		snprintf(message, sizeof(message), "xalloc: %s(%p): %s", call, ptr, what[verdict]);
	} else {
		place = unlock(where, verdict);
		snprintf(message, sizeof(message),
			 "xalloc: %s(%p): %s; +%zu bytes in %s, in the page at %p", call, ptr,
			 what[verdict], inside, place.text, place.page);
	}
	stop(call, ptr, &place, message);
}

void xl_free_raced(const void *ptr)
{
	struct xl_where where;
	enum xl_verdict verdict = xl_find(ptr, &where);

	/*
	 * Two threads have written its state, and locks may be held: no handler may go on from
	 * here. The verdict is what they came to, or that its page is gone.
	 */
	xalloc_set_misuse_handler(NULL);
	xl_misuse("xalloc_free", ptr, verdict == XL_BLOCK ? XL_FREED : verdict, &where);
}

void xl_mismatch(const char *call, const void *ptr, size_t size, struct xl_where *where)
{
	struct place place = unlock(where, XL_BLOCK);
	char message[256];

	end_flight(where);
	snprintf(message, sizeof(message),
		 "xalloc: %s(%p, %zu): wrong size; it is %s, in the page at %p", call, ptr, size,
		 place.text, place.page);
	stop(call, ptr, &place, message);
}

void xl_overrun(const char *call, const void *ptr, size_t size, size_t at, struct xl_where *where)
{
	struct place place = unlock(where, XL_BLOCK);
	char message[256];

	end_flight(where);
	snprintf(message, sizeof(message),
		 "xalloc: %s(%p): written past the %zu bytes that were asked for, first at +%zu; it is %s, in the page at %p",
		 call, ptr, size, at, place.text, place.page);
	stop(call, ptr, &place, message);
}
