//! Prefixes of paths as a radix tree: all that a path begins with is found in one walk over it.

use std::ops::Range;

/// No node.
const NONE: u32 = u32::MAX;

/// What is asked of a path that begins with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing more.
    Anything,
    /// The key ends where a segment ends.
    SegmentEnd,
    /// The key is only what is plain of it: the path itself has still to be compared.
    Unknown,
}

/// Places of rows by key.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// All labels.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Node {
    /// What stands between its parent's key and the end of its own, in `text`.
    label: Range<u32>,
    /// First byte of the label of each child, in ascending order.
    firsts: Vec<u8>,
    /// The children, likewise.
    children: Vec<u32>,
    /// The nearest node above it that has rows.
    up: u32,
    /// Bytes of its key.
    depth: u32,
    /// Rows in ascending order, with what each asks for.
    rows: Vec<(u32, After)>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::new(0..0)], text: Vec::new() }
    }

    /// Adds a row. Rows come in ascending order; [`finish`](Self::finish) comes last.
    pub(super) fn insert(&mut self, key: &str, row: u32, after: After) {
        let node = self.node(key.as_bytes());
        self.nodes[node as usize].rows.push((row, after));
    }

    fn node(&mut self, mut key: &[u8]) -> u32 {
        let mut at = 0;
        while let Some(&first) = key.first() {
            let place = match self.nodes[at as usize].firsts.binary_search(&first) {
                Ok(place) => place,
                Err(place) => {
                    let begin = self.text.len() as u32;
                    self.text.extend_from_slice(key);
                    let leaf = self.add(Node::new(begin..self.text.len() as u32));
                    let node = &mut self.nodes[at as usize];
                    node.firsts.insert(place, first);
                    node.children.insert(place, leaf);
                    return leaf;
                }
            };
            let child = self.nodes[at as usize].children[place];
            let label = self.label(child);
            let same = label.iter().zip(key).take_while(|(a, b)| a == b).count();
            if same < label.len() {
                // The child's label forks in the middle.
                let rest_first = label[same];
                let whole = self.nodes[child as usize].label.clone();
                let middle = whole.start + same as u32;
                let fork = self.add(Node::new(whole.start..middle));
                self.nodes[child as usize].label = middle..whole.end;
                self.nodes[fork as usize].firsts.push(rest_first);
                self.nodes[fork as usize].children.push(child);
                self.nodes[at as usize].children[place] = fork;
                at = fork;
            } else {
                at = child;
            }
            key = &key[same..];
        }
        at
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    fn label(&self, node: u32) -> &[u8] {
        let Range { start, end } = self.nodes[node as usize].label;
        &self.text[start as usize..end as usize]
    }

    /// Links each node to the one above it that has rows.
    pub(super) fn finish(&mut self) {
        let mut open = vec![0u32];
        while let Some(at) = open.pop() {
            let node = &self.nodes[at as usize];
            let up = if node.rows.is_empty() { node.up } else { at };
            let depth = node.depth;
            let children = node.children.clone();
            for child in children {
                let below = &mut self.nodes[child as usize];
                below.up = up;
                below.depth = depth + (below.label.end - below.label.start);
                open.push(child);
            }
        }
    }

    /// The smallest row below `best` whose key `path` begins with, and that `takes` it. The longest
    /// keys are asked first: where rows are in order of specificity, the first one found ends the
    /// search.
    pub(super) fn find(
        &self,
        path: &str,
        mut best: u32,
        mut takes: impl FnMut(u32, After) -> bool,
    ) -> u32 {
        let bytes = path.as_bytes();
        let mut at = 0u32;
        let mut end = 0;
        while let Some(&first) = bytes.get(end) {
            let node = &self.nodes[at as usize];
            let Ok(place) = node.firsts.binary_search(&first) else { break };
            let child = node.children[place];
            let label = self.label(child);
            if !bytes[end..].starts_with(label) {
                break;
            }
            end += label.len();
            at = child;
        }
        if self.nodes[at as usize].rows.is_empty() {
            at = self.nodes[at as usize].up;
        }
        while at != NONE {
            let node = &self.nodes[at as usize];
            let ends = matches!(bytes.get(node.depth as usize), None | Some(b'/'));
            for &(row, after) in &node.rows {
                if row >= best {
                    break;
                }
                if (ends || after != After::SegmentEnd) && takes(row, after) {
                    best = row;
                    break;
                }
            }
            at = node.up;
        }
        best
    }
}

impl Node {
    fn new(label: Range<u32>) -> Self {
        Self { label, firsts: vec![], children: vec![], up: NONE, depth: 0, rows: vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All rows whose keys a path begins with, as the search meets them.
    fn met(keys: &[(&str, After)], path: &str) -> Vec<u32> {
        let mut tree = Tree::new();
        for (row, (key, after)) in keys.iter().enumerate() {
            tree.insert(key, row as u32, *after);
        }
        tree.finish();
        let mut met = Vec::new();
        let best = tree.find(path, u32::MAX, |row, _| {
            met.push(row);
            false
        });
        assert_eq!(best, u32::MAX);
        met
    }

    #[test]
    fn every_key_that_a_path_begins_with_is_met_longest_first() {
        let any = After::Anything;
        let keys =
            [("/a", any), ("/abc", any), ("/ab", any), ("/abd", any), ("", any), ("/x", any)];
        assert_eq!(met(&keys, "/abcd"), [1, 2, 0, 4]);
        assert_eq!(met(&keys, "/ab"), [2, 0, 4]);
        assert_eq!(met(&keys, "/"), [4]);
        assert_eq!(met(&keys, ""), [4]);
        assert!(met(&[], "/a").is_empty());
    }

    #[test]
    fn a_key_of_segments_is_met_where_a_segment_ends() {
        let keys =
            [("/api", After::SegmentEnd), ("/a", After::SegmentEnd), ("", After::SegmentEnd)];
        assert_eq!(met(&keys, "/api"), [0, 2]);
        assert_eq!(met(&keys, "/api/x"), [0, 2]);
        assert_eq!(met(&keys, "/apix"), [2]);
        assert!(met(&keys, "*").is_empty());
    }

    #[test]
    fn the_smallest_row_wins_whatever_the_length_of_its_key() {
        let mut tree = Tree::new();
        tree.insert("/", 3, After::Anything);
        tree.insert("/ab", 7, After::Anything);
        tree.finish();
        assert_eq!(tree.find("/abc", u32::MAX, |_, _| true), 3);
        assert_eq!(tree.find("/abc", 2, |_, _| true), 2);
        assert_eq!(tree.find("/abc", u32::MAX, |row, _| row == 7), 7);
    }

    #[test]
    fn a_chain_of_prefixes_as_long_as_policies_can_make_it_is_no_recursion() {
        let keys: Vec<String> = (1..3000).map(|n| "/".repeat(n)).collect();
        let mut tree = Tree::new();
        for (row, key) in keys.iter().enumerate() {
            tree.insert(key, row as u32, After::Anything);
        }
        tree.finish();
        let mut met = 0;
        tree.find(&"/".repeat(4000), u32::MAX, |_, _| {
            met += 1;
            false
        });
        assert_eq!(met, 2999);
    }
}
