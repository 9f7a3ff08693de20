// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The tree of records: its records and nodes are made and freed here, and its spans computed.
 *
 * placement.h has the words and the invariants. This file keeps those of the tree:
 *
 *	a node exists while there is a record below it
 *	nr_records and table_bytes change when a record or a node comes or goes
 *	a node's span is that of its halves, once the caller has called
 *	xalloc_tree_update_spans() for each bitmap that it changed
 *
 * A record is whole when it is made and when it is dropped. Slices without a record are free too,
 * so neither changes a span. (xalloc_placement_fini() drops records that are not whole; no node
 * is left then.)
 */
#include "placement_tree.h"

/*
 * The span of @node, whose block begins with segment @first and whose halves are of @level. The
 * arena never ends inside the first half: if that has no record, the second half has one.
 */
static struct xalloc_placement_span join_halves(const struct xalloc_placement *pl,
						const struct xalloc_placement_node *node,
						uint32_t first, uint32_t level)
{
	uint32_t nr_a = PER_SEGMENT << level, middle = first + (1u << level);
	uint32_t nr_b = nr_segments_in(pl, middle, level) * PER_SEGMENT;
	struct xalloc_placement_span a = span_of(node->child[0], level, nr_a);
	struct xalloc_placement_span b = span_of(node->child[1], level, nr_b);
	struct xalloc_placement_span span;

	span.left = a.left == nr_a ? nr_a + b.left : a.left;
	span.right = b.right == nr_b ? nr_b + a.right : b.right;
	span.longest = a.longest > b.longest ? a.longest : b.longest;
	if (a.right + b.left > span.longest)
		span.longest = a.right + b.left;
	return span;
}

static bool spans_equal(const struct xalloc_placement_span *a,
			const struct xalloc_placement_span *b)
{
	return a->left == b->left && a->right == b->right && a->longest == b->longest;
}

/**
 * xalloc_tree_update_spans() - carry a change of a segment's bitmap up the tree
 * @pl: the placement
 * @seg: the segment
 * @all: go up to the root, not only until a span stays as it is
 */
void xalloc_tree_update_spans(struct xalloc_placement *pl,
			      const struct xalloc_placement_segment *seg, bool all)
{
	struct xalloc_placement_node *node;
	uint32_t level;

	for (node = seg->parent, level = 0; node; node = node->parent, level++) {
		uint32_t first = seg->index & ~((2u << level) - 1);
		struct xalloc_placement_span span = join_halves(pl, node, first, level);

		if (!all && spans_equal(&node->span, &span))
			break;
		node->span = span;
	}
}

/* Remove @node if nothing is below it, and then in the same way what is above it. */
static void drop_empty_nodes(struct xalloc_placement *pl, struct xalloc_placement_node *node)
{
	while (node && !node->child[0].node && !node->child[1].node) {
		struct xalloc_placement_node *parent = node->parent;

		if (parent)
			parent->child[parent->child[1].node == node].node = NULL;
		else
			pl->root.node = NULL;
		xalloc_placement_free(node);
		pl->table_bytes -= sizeof(*node);
		node = parent;
	}
}

static struct xalloc_placement_node *create_node(struct xalloc_placement *pl,
						 struct xalloc_placement_node *parent,
						 uint32_t first, uint32_t level)
{
	struct xalloc_placement_node *node = xalloc_placement_alloc(sizeof(*node));
	uint32_t size = nr_segments_in(pl, first, level) * PER_SEGMENT;

	if (node) {
		node->parent = parent;
		node->span = (struct xalloc_placement_span){ size, size, size };
		pl->table_bytes += sizeof(*node);
	}
	return node;
}

/**
 * xalloc_tree_get_record() - the record of a segment, made if there is none
 * @pl: the placement
 * @segment: the segment
 *
 * A new record is bare and whole: the caller has to change that, or to drop the record.
 *
 * Context: May sleep for memory.
 * Return: the record, or NULL, with nothing changed, if memory is short.
 */
struct xalloc_placement_segment *xalloc_tree_get_record(struct xalloc_placement *pl,
							uint32_t segment)
{
	union xalloc_placement_child *link = &pl->root;
	struct xalloc_placement_node *parent = NULL, *node;
	struct xalloc_placement_segment *seg;
	uint32_t level = pl->nr_levels;

	while (level) {
		if (!link->node)
			link->node = create_node(pl, parent, segment >> level << level, level);
		if (!link->node)
			goto err_drop;
		parent = link->node;
		link = &parent->child[segment >> --level & 1];
	}
	if (link->segment)
		return link->segment;
	seg = xalloc_placement_alloc(sizeof(*seg));
	if (!seg)
		goto err_drop;
	seg->parent = parent;
	seg->index = segment;
	seg->free = ALL_FREE;
	link->segment = seg;
	pl->table_bytes += sizeof(*seg);
	pl->nr_records++;
	for (node = parent; node; node = node->parent)
		node->nr_records++;
	return seg;

err_drop:
	drop_empty_nodes(pl, parent);
	return NULL;
}

/**
 * xalloc_tree_drop_record() - free the record of a segment
 * @pl: the placement
 * @seg: the segment, bare, whole and on no queue
 */
void xalloc_tree_drop_record(struct xalloc_placement *pl, struct xalloc_placement_segment *seg)
{
	struct xalloc_placement_node *parent = seg->parent, *node;

	if (parent)
		parent->child[seg->index & 1].segment = NULL;
	else
		pl->root.segment = NULL;
	xalloc_placement_free(seg);
	pl->table_bytes -= sizeof(*seg);
	pl->nr_records--;
	for (node = parent; node; node = node->parent)
		node->nr_records--;
	drop_empty_nodes(pl, parent);
}

/**
 * xalloc_tree_node_is_valid() - prove what a node says of what is right below it
 * @pl: the placement
 * @cur: where the node is
 *
 * Return: true if links, span and count agree.
 */
bool xalloc_tree_node_is_valid(const struct xalloc_placement *pl, const struct cursor *cur)
{
	const struct xalloc_placement_node *node = cur->at.node;
	struct xalloc_placement_span span = join_halves(pl, node, cur->first, cur->level - 1);
	uint32_t half, nr_records = 0;

	for (half = 0; half < 2; half++) {
		union xalloc_placement_child child = node->child[half];

		if (!child.node)
			continue;
		if ((cur->level > 1 ? child.node->parent : child.segment->parent) != node)
			return false;
		nr_records += cur->level > 1 ? child.node->nr_records : 1;
	}
	return nr_records && nr_records == node->nr_records && spans_equal(&node->span, &span);
}
