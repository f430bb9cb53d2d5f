//! Choosing what to draw, exactly.
//!
//! Drawing a file saves what it would cost otherwise and costs the frames that it requires, each
//! once however many files require it. The best choice is a minimum cut: of what is saved on one
//! side and what is paid on the other (the problem is known as project selection). The cut is
//! found by Dinic's maximum flow, without recursion, because chains come from outside.

/// More rounds than any honest chain needs; whoever exceeds it draws everything.
const MAX_ROUNDS: usize = 10_000;
const ENDLESS: u64 = u64::MAX / 4;
const SAVED: usize = 0;
const PAID: usize = 1;

/// The graph. Nodes are files, old files and frames alike.
pub(super) struct Cut {
    edges: Vec<Edge>,
    /// Numbers of the edges that leave each node.
    leaving: Vec<Vec<usize>>,
}

/// What may still flow; the edge back has the number with its last bit flipped.
struct Edge {
    to: usize,
    room: u64,
}

impl Cut {
    pub(super) fn new() -> Self {
        Self { edges: Vec::new(), leaving: vec![Vec::new(), Vec::new()] }
    }

    pub(super) fn add_node(&mut self) -> usize {
        self.leaving.push(Vec::new());
        self.leaving.len() - 1
    }

    /// Having `node` means having `other`.
    pub(super) fn require(&mut self, node: usize, other: usize) {
        self.connect(node, other, ENDLESS);
    }

    /// Having `node` costs so many bytes.
    pub(super) fn costs(&mut self, node: usize, bytes: u64) {
        self.connect(node, PAID, bytes);
    }

    /// Having `node` saves so many bytes; without a number it must be had.
    pub(super) fn saves(&mut self, node: usize, bytes: Option<u64>) {
        self.connect(SAVED, node, bytes.map_or(ENDLESS, |bytes| bytes.min(ENDLESS)));
    }

    /// Whether each node is had. Where it makes no difference, it is.
    pub(super) fn chosen(mut self) -> Vec<bool> {
        for _ in 0..MAX_ROUNDS {
            let levels = self.levels();
            if levels[PAID].is_none() {
                return self.not_paying();
            }
            self.fill(&levels);
        }
        vec![true; self.leaving.len()]
    }

    fn connect(&mut self, from: usize, to: usize, room: u64) {
        for (from, to, room) in [(from, to, room), (to, from, 0)] {
            self.leaving[from].push(self.edges.len());
            self.edges.push(Edge { to, room });
        }
    }

    /// Steps from the beginning to each node that can still be reached.
    fn levels(&self) -> Vec<Option<usize>> {
        let mut levels = vec![None; self.leaving.len()];
        levels[SAVED] = Some(0);
        let mut queue = std::collections::VecDeque::from([(SAVED, 0)]);
        while let Some((node, level)) = queue.pop_front() {
            for edge in self.leaving[node].iter().map(|edge| &self.edges[*edge]) {
                if edge.room > 0 && levels[edge.to].is_none() {
                    levels[edge.to] = Some(level + 1);
                    queue.push_back((edge.to, level + 1));
                }
            }
        }
        levels
    }

    /// Lets flow what can along shortest ways.
    fn fill(&mut self, levels: &[Option<usize>]) {
        let mut next = vec![0; self.leaving.len()];
        let mut way: Vec<usize> = Vec::new();
        loop {
            let node = way.last().map_or(SAVED, |edge| self.edges[*edge].to);
            if node == PAID {
                let room = way.iter().map(|edge| self.edges[*edge].room).min().unwrap_or(0);
                for edge in &way {
                    self.edges[*edge].room -= room;
                    self.edges[*edge ^ 1].room += room;
                }
                let full = way.iter().position(|edge| self.edges[*edge].room == 0);
                way.truncate(full.unwrap_or(0));
                continue;
            }
            let further = self.leaving[node][next[node]..].iter().position(|edge| {
                let Edge { to, room } = &self.edges[*edge];
                *room > 0 && levels[*to] == levels[node].map(|level| level + 1)
            });
            match further {
                Some(skipped) => {
                    next[node] += skipped;
                    way.push(self.leaving[node][next[node]]);
                }
                None => {
                    next[node] = self.leaving[node].len();
                    match way.pop() {
                        None => return,
                        Some(edge) => next[self.edges[edge ^ 1].to] += 1,
                    }
                }
            }
        }
    }

    /// After the flow: nodes from which nothing more can be paid.
    fn not_paying(&self) -> Vec<bool> {
        let mut paying = vec![false; self.leaving.len()];
        paying[PAID] = true;
        let mut todo = vec![PAID];
        while let Some(node) = todo.pop() {
            for &edge in &self.leaving[node] {
                let before = self.edges[edge].to;
                if self.edges[edge ^ 1].room > 0 && !paying[before] {
                    paying[before] = true;
                    todo.push(before);
                }
            }
        }
        paying.into_iter().map(|paying| !paying).collect()
    }
}
