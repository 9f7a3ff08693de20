// SPDX-License-Identifier: GPL-2.0-only
/*
 * Views: which arena of a family an address space has.
 *
 * All members of a family share the inode, and with it the files and mappings that a child
 * inherits. What an address space sees there is its view: the first arena, or, where it came to
 * be by fork, a copy. So there is at most one view for a family and an address space; files
 * that it opened and its mappings refer to it, and a copy goes with the last of them. The first
 * arena is the inode's, which each of them holds; what is in it goes with the last of its own.
 *
 * A mapping whose vm_mm is not that of its view was just made by fork. Nothing else can be
 * asked: vm_ops->open() is called for splits too, by whoever splits.
 */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

static struct xalloc_view *alloc_view(struct mm_struct *mm, struct xalloc_arena *arena)
{
	struct xalloc_view *view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);

	if (!view)
		return NULL;
	refcount_set(&view->refs, 1);
	mutex_init(&view->lock);
	/* Its address cannot come to mean another process. */
	mmgrab(mm);
	view->mm = mm;
	view->arena = arena;
	return view;
}

static void free_view(struct xalloc_view *view)
{
	mmdrop(view->mm);
	mutex_destroy(&view->lock);
	kfree(view);
}

static struct xalloc_view *find_view(struct xalloc_family *family, const struct mm_struct *mm)
{
	struct xalloc_view *view, *found = NULL;

	spin_lock(&family->lock);
	list_for_each_entry(view, &family->views, link)
		if (view->mm == mm) {
			refcount_inc(&view->refs);
			found = view;
			break;
		}
	spin_unlock(&family->lock);
	return found;
}

/* The view of who creates the first arena of a family. */
static struct xalloc_view *create_view(struct xalloc_arena *arena)
{
	struct xalloc_view *view = alloc_view(current->mm, arena);

	if (!view)
		return ERR_PTR(-ENOMEM);
	spin_lock(&arena->family->lock);
	list_add(&view->link, &arena->family->views);
	spin_unlock(&arena->family->lock);
	return view;
}

/** xalloc_view_get() - take another reference */
void xalloc_view_get(struct xalloc_view *view)
{
	refcount_inc(&view->refs);
}

/**
 * xalloc_view_put() - drop a reference; the last one ends a copy, or empties the first arena
 * @view: the view, not to be used after this
 *
 * Context: Process context, may sleep; mm->mmap_lock may be held.
 */
void xalloc_view_put(struct xalloc_view *view)
{
	struct xalloc_arena *arena = view->arena;
	struct xalloc_family *family = arena->family;
	bool is_last;

	spin_lock(&family->lock);
	is_last = refcount_dec_and_test(&view->refs);
	if (is_last)
		list_del(&view->link);
	spin_unlock(&family->lock);
	if (!is_last)
		return;
	if (view->prepared)
		xalloc_copy_destroy(view->prepared);
	if (view->heir)
		xalloc_copy_destroy(view->heir);
	else if (view->is_copy)
		xalloc_arena_destroy(arena);
	else
		xalloc_arena_vacate(arena);
	free_view(view);
}

/**
 * xalloc_view_open() - create a client for a file that the current task opens
 * @arena: the first arena of the inode's family
 * @writable: whether for writing
 * @first: the file is the first one of all
 *
 * Context: Process context, may sleep.
 * Return: the client, or -ESTALE if the arena, or a copy of it, is none of the task's, -ENOMEM.
 */
struct xalloc_client *xalloc_view_open(struct xalloc_arena *arena, bool writable, bool first)
{
	struct xalloc_view *view = first ? create_view(arena) :
					   find_view(arena->family, current->mm);
	struct xalloc_client *client;

	if (!view)
		return ERR_PTR(-ESTALE);
	if (IS_ERR(view))
		return ERR_CAST(view);
	client = writable ? xchg(&view->heir, NULL) : NULL;
	if (!client)
		client = xalloc_client_create(view->arena);
	if (IS_ERR(client))
		xalloc_view_put(view);
	else
		client->view = view;
	return client;
}

/** xalloc_view_release() - destroy a client of xalloc_view_open() */
void xalloc_view_release(struct xalloc_client *client)
{
	struct xalloc_view *view = client->view;

	xalloc_client_destroy(client);
	xalloc_view_put(view);
}

/* What was prepared, if it is still what there is to copy. */
static struct xalloc_client *take_prepared(struct xalloc_view *view)
{
	struct xalloc_arena *arena = view->arena;
	struct xalloc_client *heir;
	bool is_same;

	mutex_lock(&view->lock);
	heir = view->prepared;
	view->prepared = NULL;
	mutex_lock(&arena->lock);
	is_same = arena->nr_changes == view->nr_changes;
	mutex_unlock(&arena->lock);
	mutex_unlock(&view->lock);
	if (!heir || is_same)
		return heir;
	xalloc_copy_destroy(heir);
	return NULL;
}

/**
 * xalloc_view_of_child() - the view of a process that is just being forked
 * @view: that of its parent
 * @mm: the address space of the child
 *
 * Context: Process context, may sleep; mm->mmap_lock held of parent and child.
 * Return: the view, with a reference, or NULL if there was no memory for a copy.
 */
struct xalloc_view *xalloc_view_of_child(struct xalloc_view *view, struct mm_struct *mm)
{
	struct xalloc_family *family = view->arena->family;
	struct xalloc_view *child = find_view(family, mm);
	struct xalloc_client *heir;
	u64 nr_changes;

	/* Of another mapping. */
	if (child)
		return child;
	heir = take_prepared(view) ?: xalloc_copy_create(view->arena, &nr_changes);
	if (IS_ERR(heir))
		return NULL;
	if (xalloc_copy_fill(heir, view->arena))
		goto err_destroy;
	child = alloc_view(mm, heir->arena);
	if (!child)
		goto err_destroy;
	child->is_copy = true;
	child->heir = heir;
	mutex_lock(&heir->arena->lock);
	heir->arena->mapping = view->arena->mapping;
	mutex_unlock(&heir->arena->lock);
	spin_lock(&family->lock);
	list_add(&child->link, &family->views);
	spin_unlock(&family->lock);
	return child;

err_destroy:
	xalloc_copy_destroy(heir);
	return NULL;
}

/**
 * xalloc_view_prepare() - have what the next fork of the current task needs
 * @view: the view of the current task
 * @cancel: only give back what there is
 *
 * Context: Process context, may sleep.
 * Return: 0, or as from xalloc_copy_create().
 */
int xalloc_view_prepare(struct xalloc_view *view, bool cancel)
{
	struct xalloc_client *heir = NULL;
	int err = 0;

	if (mutex_lock_killable(&view->lock))
		return -EINTR;
	if (view->prepared)
		xalloc_copy_destroy(view->prepared);
	if (!cancel)
		heir = xalloc_copy_create(view->arena, &view->nr_changes);
	if (IS_ERR(heir)) {
		err = PTR_ERR(heir);
		heir = NULL;
	}
	view->prepared = heir;
	mutex_unlock(&view->lock);
	return err;
}
