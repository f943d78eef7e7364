//! What was done to the disk, in order, by inode: a file keeps its history when it is renamed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::image::{Image, ImageNode};

/// A file or directory; the root is 0.
pub(super) type Ino = usize;

/// A file system; that of the root is 0.
pub(super) type Volume = usize;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A name now stands for an inode, in place of whatever it stood for.
    Link { dir: Ino, name: String, ino: Ino },
    /// A name is gone.
    Unlink { dir: Ino, name: String },
    /// Both in one step, in one directory or two.
    Rename { from: (Ino, String), to: (Ino, String), ino: Ino },
    /// Bytes at an offset.
    Write { ino: Ino, offset: usize, bytes: Vec<u8> },
    /// A new length.
    Truncate { ino: Ino, length: usize },
    /// A file's bytes and length are durable.
    SyncFile { ino: Ino },
    /// A directory's names are durable.
    SyncDir { ino: Ino },
    /// A test's note: this much was acknowledged.
    Mark { number: u64 },
}

/// The events, and the names as they are now.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) events: Vec<Event>,
    /// What was durable before the first event.
    pub(super) start: Vec<StartNode>,
    nodes: Vec<Node>,
    mounted: Volume,
}

#[derive(Clone, Debug)]
pub(super) enum StartNode {
    Dir { names: BTreeMap<String, Ino> },
    File { bytes: Vec<u8> },
}

#[derive(Debug)]
struct Node {
    /// Names in a directory; none for a file.
    names: Option<BTreeMap<String, Ino>>,
    mode: u32,
    volume: Volume,
    /// Where it was made; a rename changes nothing of this.
    born: PathBuf,
}

impl Log {
    pub(super) fn starting_from(image: &Image) -> Self {
        let mut log = Self::default();
        log.nodes.push(Node { names: Some(BTreeMap::new()), mode: 0o700, volume: 0, born: PathBuf::new() });
        log.start.push(StartNode::Dir { names: BTreeMap::new() });
        for (path, node) in image.nodes() {
            let (dir, name) = log.place(path);
            let ino = log.nodes.len();
            let (names, mode, start) = match node {
                ImageNode::Dir { mode } => (Some(BTreeMap::new()), *mode, StartNode::Dir { names: BTreeMap::new() }),
                ImageNode::File { bytes, mode } => (None, *mode, StartNode::File { bytes: bytes.clone() }),
            };
            log.nodes.push(Node { names, mode, volume: 0, born: path.clone() });
            log.start.push(start);
            log.names_mut(dir).insert(name.clone(), ino);
            if let Some(StartNode::Dir { names }) = log.start.get_mut(dir) {
                names.insert(name, ino);
            }
        }
        log
    }

    /// The inode at a path below the root.
    pub(super) fn find(&self, path: &Path) -> Option<Ino> {
        path.components().try_fold(0, |dir, component| {
            let name = component.as_os_str().to_str()?;
            self.nodes.get(dir)?.names.as_ref()?.get(name).copied()
        })
    }

    /// Makes a file or directory, linked at `path`.
    pub(super) fn create(&mut self, path: &Path, is_dir: bool, mode: u32) -> Ino {
        let ino = self.nodes.len();
        let (dir, name) = self.place(path);
        let volume = self.nodes[dir].volume;
        self.nodes.push(Node { names: is_dir.then(BTreeMap::new), mode, volume, born: path.into() });
        self.names_mut(dir).insert(name.clone(), ino);
        self.events.push(Event::Link { dir, name, ino });
        ino
    }

    pub(super) fn remove(&mut self, path: &Path) {
        let (dir, name) = self.place(path);
        self.names_mut(dir).remove(&name);
        self.events.push(Event::Unlink { dir, name });
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        let (from, to) = (self.place(from), self.place(to));
        let ino = self.names_mut(from.0).remove(&from.1).expect("what was renamed was made on this disk");
        self.names_mut(to.0).insert(to.1.clone(), ino);
        self.events.push(Event::Rename { from, to, ino });
    }

    pub(super) fn mark(&mut self, number: u64) {
        self.events.push(Event::Mark { number });
    }

    pub(super) fn marked_before(&self, at: usize) -> Option<u64> {
        self.events.iter().take(at).rev().find_map(|event| match event {
            Event::Mark { number } => Some(*number),
            _ => None,
        })
    }

    pub(super) fn mode(&self, ino: Ino) -> u32 {
        self.nodes[ino].mode
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.nodes[ino].names.is_some()
    }

    pub(super) fn volume(&self, ino: Ino) -> Volume {
        self.nodes[ino].volume
    }

    pub(super) fn born(&self, ino: Ino) -> &Path {
        &self.nodes[ino].born
    }

    /// An empty directory becomes the root of a file system of its own.
    pub(super) fn mount(&mut self, dir: Ino) {
        self.mounted += 1;
        self.nodes[dir].volume = self.mounted;
    }

    /// How many inodes there are.
    pub(super) fn inodes(&self) -> usize {
        self.nodes.len()
    }

    fn place(&self, path: &Path) -> (Ino, String) {
        let parent = path.parent().expect("the root itself is neither made nor removed");
        let dir = self.find(parent).unwrap_or_else(|| panic!("{} was not made on this disk", parent.display()));
        let name = path.file_name().and_then(|n| n.to_str()).expect("tests use UTF-8 names");
        (dir, name.to_owned())
    }

    fn names_mut(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        self.nodes[dir].names.as_mut().expect("a parent is a directory")
    }
}
