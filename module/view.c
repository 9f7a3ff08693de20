// SPDX-License-Identifier: GPL-2.0-only
/*
 * Views: which arena of a family an address space has.
 *
 * All members of a family share the inode, and with it the files and mappings that a child
 * inherits. What an address space sees there is its view: the first arena, or, where it came to
 * be by fork, a copy. So there is at most one view for a family and an address space.
 *
 * A client lives while its file is open or a mapping that was made by that file is left. The
 * mappings that a child inherits count for the heir, the client that owns the pages of the copy. A
 * view lives while it has a client, a copy lives while it has its view, and an heir that no
 * file has taken lives as long as its view. The first arena is the inode's, which all of them hold;
 * the end of its view empties it.
 *
 * A child inherits the vm_file of a mapping too, and that must hold no client of the parent. So
 * the mappings of a family have a file of their own, which holds nothing but the inode.
 *
 * If the vm_mm of a mapping differs from the mm of its client's view, fork has just made the
 * mapping. Nothing else tells: vm_ops->open() is called for splits too, and by any task.
 */
#include <linux/file.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

/* Returns the view with one reference, that of @client, to which the caller has one reference. */
static struct xalloc_view *create_view(struct xalloc_client *client, struct mm_struct *mm,
				       struct file *file, bool is_copy)
{
	struct xalloc_family *family = client->arena->family;
	struct xalloc_view *view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);

	if (!view)
		return NULL;
	refcount_set(&view->refs, 1);
	mutex_init(&view->lock);
	/* Its address cannot come to mean another process. */
	mmgrab(mm);
	view->mm = mm;
	view->file = get_file(file);
	view->arena = client->arena;
	view->is_copy = is_copy;
	view->heir = is_copy ? client : NULL;
	refcount_set(&client->refs, 1);
	client->view = view;
	spin_lock(&family->lock);
	list_add(&view->link, &family->views);
	spin_unlock(&family->lock);
	return view;
}

/* The last reference ends a copy, or empties the first arena. */
static void put_view(struct xalloc_view *view)
{
	struct xalloc_family *family = view->arena->family;
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
		xalloc_client_destroy(view->heir);
	if (view->is_copy)
		xalloc_arena_destroy(view->arena);
	else
		xalloc_arena_vacate(view->arena);
	mmdrop(view->mm);
	mutex_destroy(&view->lock);
	/* The inode may go with it, and the first arena with the inode. */
	fput(view->file);
	kfree(view);
}

static struct xalloc_view *find_view(struct xalloc_family *family, const struct mm_struct *mm)
{
	struct xalloc_view *view;

	lockdep_assert_held(&family->lock);
	list_for_each_entry(view, &family->views, link)
		if (view->mm == mm)
			return view;
	return NULL;
}

/* Another client; it takes over the caller's reference to the view. */
static struct xalloc_client *create_client(struct xalloc_view *view)
{
	struct xalloc_client *client = xalloc_client_create(view->arena);

	if (IS_ERR(client)) {
		put_view(view);
		return client;
	}
	refcount_set(&client->refs, 1);
	client->view = view;
	return client;
}

/**
 * xalloc_view_create() - create the first view of a family, that of the current task
 * @arena: the first arena of the family
 * @file: the vm_file of all mappings of the family
 *
 * Context: Process context, may sleep.
 * Return: the first client, with a reference, or -ENOMEM.
 */
struct xalloc_client *xalloc_view_create(struct xalloc_arena *arena, struct file *file)
{
	struct xalloc_client *client = xalloc_client_create(arena);

	if (IS_ERR(client) || create_view(client, current->mm, file, false))
		return client;
	xalloc_client_destroy(client);
	return ERR_PTR(-ENOMEM);
}

/**
 * xalloc_view_open() - have a client for a file that the current task opens
 * @arena: the first arena of the inode's family
 * @writable: whether for writing; the first such file of a child takes the heir
 *
 * Context: Process context, may sleep.
 * Return: the client, with a reference, or -ESTALE if the task has neither the arena nor a copy of
 * it, -ENOMEM.
 */
struct xalloc_client *xalloc_view_open(struct xalloc_arena *arena, bool writable)
{
	struct xalloc_family *family = arena->family;
	struct xalloc_client *heir = NULL;
	struct xalloc_view *view;

	spin_lock(&family->lock);
	view = find_view(family, current->mm);
	if (view && view->heir && writable) {
		swap(heir, view->heir);
		if (!refcount_inc_not_zero(&heir->refs)) {
			/* Its last mapping is gone: give it and the view a reference again. */
			refcount_set(&heir->refs, 1);
			refcount_inc(&view->refs);
		}
	} else if (view) {
		refcount_inc(&view->refs);
	}
	spin_unlock(&family->lock);
	if (!view)
		return ERR_PTR(-ESTALE);
	return heir ?: create_client(view);
}

/** xalloc_view_get() - take another reference to a client of a view */
void xalloc_view_get(struct xalloc_client *client)
{
	refcount_inc(&client->refs);
}

/**
 * xalloc_view_put() - drop a reference to a client of a view; the last one destroys the client
 * @client: the client, not to be used after this
 *
 * An heir that no file has taken stays without a reference, for the next file that is opened for
 * writing, until the last other client of its view goes.
 *
 * Context: Process context, may sleep; mm->mmap_lock may be held.
 */
void xalloc_view_put(struct xalloc_client *client)
{
	struct xalloc_view *view = client->view;
	struct xalloc_family *family = view->arena->family;
	bool is_last, is_heir;

	spin_lock(&family->lock);
	is_last = refcount_dec_and_test(&client->refs);
	is_heir = view->heir == client;
	spin_unlock(&family->lock);
	if (!is_last)
		return;
	if (!is_heir)
		xalloc_client_destroy(client);
	put_view(view);
}

/**
 * xalloc_view_status() - the status page that an address space sees
 * @arena: the first arena of a family
 * @mm: the address space; it may have no view, then it sees the page of @arena
 *
 * Return: the page, with a reference.
 */
struct page *xalloc_view_status(struct xalloc_arena *arena, const struct mm_struct *mm)
{
	struct xalloc_family *family = arena->family;
	struct xalloc_view *view;
	struct page *kpage;

	spin_lock(&family->lock);
	view = find_view(family, mm);
	kpage = virt_to_page(view ? view->arena->status : arena->status);
	get_page(kpage);
	spin_unlock(&family->lock);
	return kpage;
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

/* The heir of a child that is being forked, if an earlier mapping of the child has made it. */
static struct xalloc_client *find_heir(struct xalloc_family *family, const struct mm_struct *mm)
{
	struct xalloc_client *heir = NULL;
	struct xalloc_view *view;

	spin_lock(&family->lock);
	view = find_view(family, mm);
	if (view) {
		/* The child does not run yet, so no file of the child can have the heir. */
		heir = view->heir;
		refcount_inc(&heir->refs);
	}
	spin_unlock(&family->lock);
	return heir;
}

/**
 * xalloc_view_of_child() - the heir of a process that is just being forked
 * @client: a client of the parent
 * @mm: the address space of the child
 *
 * Context: Process context, may sleep; mm->mmap_lock held of parent and child.
 * Return: the heir, with a reference, or NULL if there was no memory for a copy.
 */
struct xalloc_client *xalloc_view_of_child(struct xalloc_client *client, struct mm_struct *mm)
{
	struct xalloc_view *view = client->view;
	struct xalloc_client *heir;
	u64 nr_changes;

	heir = find_heir(view->arena->family, mm);
	if (heir)
		return heir;
	heir = take_prepared(view) ?: xalloc_copy_create(view->arena, &nr_changes);
	if (IS_ERR(heir))
		return NULL;
	if (xalloc_copy_fill(heir, view->arena))
		goto err_destroy;
	mutex_lock(&heir->arena->lock);
	heir->arena->mapping = view->arena->mapping;
	mutex_unlock(&heir->arena->lock);
	if (create_view(heir, mm, view->file, true))
		return heir;

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
