//! What a cut leaves.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::log::{Event, Ino, Log, StartNode, Volume};
use crate::SeededEntropy;

/// What becomes of bytes that were written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// None are there.
    Dropped,
    /// Each page of 4 KiB as some moment since the last sync left it.
    Pages,
    /// Each sector of 512 bytes so: a page may be torn.
    Sectors,
    /// All up to some moment, in order, and a part of the write that was under way.
    Torn,
}

impl Unsynced {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dropped, Self::Pages, Self::Sectors, Self::Torn];
}

/// When a name lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// As ext4's journal does it: any sync makes all earlier names durable, and they become so in order.
    Ext4,
    /// As POSIX promises it: a name is durable once its directory was synced, each directory by itself.
    Strict,
}

impl NameRule {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Strict];
}

/// A power cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After so many events.
    pub at: usize,
    /// What becomes of bytes.
    pub unsynced: Unsynced,
    /// What becomes of names.
    pub names: NameRule,
    /// For what is left to chance.
    pub seed: u64,
}

/// A tree of files. Parents stand before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(Vec<(PathBuf, ImageNode)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageNode {
    Dir { mode: u32 },
    File { bytes: Vec<u8>, mode: u32 },
}

impl Image {
    pub(super) fn after(log: &Log, cut: &Cut) -> Self {
        let mut replay = Replay::new(log, cut.names);
        for (at, event) in log.events.iter().take(cut.at).enumerate() {
            replay.take(at, event);
        }
        replay.cut(log, cut)
    }

    /// All that was done by the first `at` events, synced or not.
    pub(super) fn of_all(log: &Log, at: usize) -> Self {
        let mut replay = Replay::new(log, NameRule::Ext4);
        for (at, event) in log.events.iter().take(at).enumerate() {
            replay.take(at, event);
        }
        replay.sync_all();
        replay.cut(log, &Cut { at, unsynced: Unsynced::Dropped, names: NameRule::Ext4, seed: 0 })
    }

    pub(super) fn nodes(&self) -> &[(PathBuf, ImageNode)] {
        &self.0
    }

    /// The bytes of one file, if it is there.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.iter().find_map(|(p, node)| match node {
            ImageNode::File { bytes, .. } if p == Path::new(path) => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// All files with their bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.0.iter().filter_map(|(path, node)| match node {
            ImageNode::File { bytes, .. } => Some((path.as_path(), bytes.as_slice())),
            ImageNode::Dir { .. } => None,
        })
    }

    /// Whether a file or directory is there.
    pub fn has(&self, path: &str) -> bool {
        self.0.iter().any(|(p, _)| p == Path::new(path))
    }

    /// Makes these files in an existing directory.
    pub fn write_to(&self, dir: &Path) {
        for (path, node) in &self.0 {
            let at = dir.join(path);
            match node {
                ImageNode::Dir { mode } => {
                    std::fs::DirBuilder::new().mode(0o700).create(&at).expect("an image is written to an empty place");
                    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(*mode)).expect("it is ours");
                }
                ImageNode::File { bytes, mode } => {
                    std::fs::OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .mode(0o600)
                        .open(&at)
                        .and_then(|mut file| {
                            file.write_all(bytes)?;
                            file.set_permissions(std::fs::Permissions::from_mode(*mode))
                        })
                        .expect("an image is written to an empty place");
                }
            }
        }
    }
}

/// The disk as far as it is durable, and what waits.
struct Replay<'a> {
    rule: NameRule,
    log: &'a Log,
    dirs: BTreeMap<Ino, BTreeMap<String, Ino>>,
    files: Vec<File<'a>>,
    names: Vec<(usize, &'a Event)>,
}

#[derive(Default)]
struct File<'a> {
    durable: Vec<u8>,
    waiting: Vec<(usize, &'a Event)>,
}

impl<'a> Replay<'a> {
    fn new(log: &'a Log, rule: NameRule) -> Self {
        let mut dirs = BTreeMap::new();
        let mut files: Vec<File<'a>> = (0..log.inodes()).map(|_| File::default()).collect();
        for (ino, node) in log.start.iter().enumerate() {
            match node {
                StartNode::Dir { names } => drop(dirs.insert(ino, names.clone())),
                StartNode::File { bytes } => files[ino].durable.clone_from(bytes),
            }
        }
        Self { rule, log, dirs, files, names: Vec::new() }
    }

    fn take(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Link { .. } | Event::Unlink { .. } | Event::Rename { .. } => self.names.push((at, event)),
            Event::Write { ino, .. } | Event::Truncate { ino, .. } => self.files[*ino].waiting.push((at, event)),
            Event::SyncFile { ino } => {
                self.files[*ino].sync();
                if self.rule == NameRule::Ext4 {
                    self.sync_volume(*ino);
                }
            }
            Event::SyncDir { ino } => match self.rule {
                NameRule::Ext4 => self.sync_volume(*ino),
                NameRule::Strict => self.sync_names(|event| dirs_of(event).contains(ino)),
            },
            Event::Mark { .. } => {}
        }
    }

    fn sync_all(&mut self) {
        self.sync_names(|_| true);
        self.files.iter_mut().for_each(File::sync);
    }

    /// One journal a file system: all names of the one that `ino` lies on.
    fn sync_volume(&mut self, ino: Ino) {
        let log = self.log;
        self.sync_names(|event| log.volume(dirs_of(event)[1]) == log.volume(ino));
    }

    fn sync_names(&mut self, durable: impl Fn(&Event) -> bool) {
        let (now, later) = std::mem::take(&mut self.names).into_iter().partition(|(_, event)| durable(event));
        self.names = later;
        apply_names(&mut self.dirs, now);
    }

    fn cut(mut self, log: &Log, cut: &Cut) -> Image {
        let chance = SeededEntropy::new(cut.seed ^ (cut.at as u64).wrapping_mul(0x9e37_79b9));
        let moment = self.moment(&chance); // for Torn: the last event that counts
        let waiting = std::mem::take(&mut self.names);
        let lasting = match (cut.unsynced, self.rule) {
            (Unsynced::Dropped, _) => Vec::new(),
            (Unsynced::Torn, _) => waiting.into_iter().filter(|(at, _)| *at < moment).collect(),
            (_, NameRule::Ext4) => {
                // Each file system keeps an ordered part of its own.
                let mut left: BTreeMap<Volume, usize> = BTreeMap::new();
                let volume = |event: &Event| log.volume(dirs_of(event)[1]);
                waiting.iter().for_each(|(_, event)| *left.entry(volume(event)).or_insert(0) += 1);
                left.values_mut().for_each(|count| *count = chance.below(*count + 1));
                let lasts = |(_, event): &(usize, &Event)| {
                    left.get_mut(&volume(event)).is_some_and(|left| {
                        let lasts = *left > 0;
                        *left = left.saturating_sub(1);
                        lasts
                    })
                };
                waiting.into_iter().filter(lasts).collect()
            }
            (_, NameRule::Strict) => {
                // Each directory keeps an ordered part of its own.
                let mut ends: BTreeMap<Ino, usize> = BTreeMap::new();
                let mut out = Vec::new();
                for (at, event) in waiting {
                    let dir = dirs_of(event)[1];
                    let end = *ends.entry(dir).or_insert_with(|| at + chance.below(cut.at - at + 1));
                    if at < end {
                        out.push((at, event));
                    }
                }
                out
            }
        };
        apply_names(&mut self.dirs, lasting);
        let bytes: Vec<Vec<u8>> = self.files.iter().map(|file| file.after(cut.unsynced, moment, &chance)).collect();
        let mut image = Image::default();
        collect(log, &self.dirs, &bytes, 0, Path::new(""), &mut image);
        image
    }

    fn moment(&self, chance: &SeededEntropy) -> usize {
        let mut waiting: Vec<usize> =
            self.files.iter().flat_map(|f| &f.waiting).chain(&self.names).map(|(at, _)| *at).collect();
        waiting.sort_unstable();
        waiting.get(chance.below(waiting.len())).copied().unwrap_or(0)
    }
}

impl File<'_> {
    fn sync(&mut self) {
        let mut bytes = std::mem::take(&mut self.durable);
        for (_, event) in self.waiting.drain(..) {
            apply_data(&mut bytes, event);
        }
        self.durable = bytes;
    }

    fn after(&self, unsynced: Unsynced, moment: usize, chance: &SeededEntropy) -> Vec<u8> {
        match unsynced {
            Unsynced::Dropped => self.durable.clone(),
            Unsynced::Pages => self.scattered(4096, chance),
            Unsynced::Sectors => self.scattered(512, chance),
            Unsynced::Torn => {
                let mut bytes = self.durable.clone();
                for (at, event) in self.waiting.iter().take_while(|(at, _)| *at <= moment) {
                    match event {
                        Event::Write { ino, offset, bytes: written } if *at == moment => {
                            let part = written[..chance.below(written.len() + 1)].to_vec();
                            apply_data(&mut bytes, &Event::Write { ino: *ino, offset: *offset, bytes: part });
                        }
                        _ => apply_data(&mut bytes, event),
                    }
                }
                bytes
            }
        }
    }

    /// Every unit of the file as a moment of its own left it; the length as another. A file that was cut short is
    /// short, or as long as it was with all that was in it: file systems journal a length, and erase nothing that it
    /// still covers.
    fn scattered(&self, unit: usize, chance: &SeededEntropy) -> Vec<u8> {
        if self.waiting.is_empty() {
            return self.durable.clone();
        }
        let mut states = vec![self.durable.clone()];
        for (_, event) in &self.waiting {
            // Long histories between two syncs are thinned: 16 moments are as good as 1000.
            let mut next = states.last().cloned().unwrap_or_default();
            apply_data(&mut next, event);
            states.push(next);
            if states.len() > 16 {
                states.remove(1 + chance.below(15));
            }
        }
        let length = states[chance.below(states.len())].len();
        let mut out = vec![0; length];
        for (index, slot) in out.chunks_mut(unit).enumerate() {
            let chosen = chance.below(states.len());
            let covers = |state: &&Vec<u8>| state.len() > index * unit;
            let state = states[..=chosen].iter().rev().find(covers).unwrap_or(&states[chosen]);
            let from = (index * unit).min(state.len());
            let piece = &state[from..(from + slot.len()).min(state.len())];
            slot[..piece.len()].copy_from_slice(piece);
        }
        out
    }
}

fn apply_data(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, bytes: written, .. } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        Event::Truncate { length, .. } => bytes.resize(*length, 0),
        _ => {}
    }
}

fn apply_names(dirs: &mut BTreeMap<Ino, BTreeMap<String, Ino>>, events: Vec<(usize, &Event)>) {
    for (_, event) in events {
        match event {
            Event::Link { dir, name, ino } => drop(dirs.entry(*dir).or_default().insert(name.clone(), *ino)),
            Event::Unlink { dir, name } => drop(dirs.entry(*dir).or_default().remove(name)),
            Event::Rename { from, to, ino } => {
                dirs.entry(from.0).or_default().remove(&from.1);
                dirs.entry(to.0).or_default().insert(to.1.clone(), *ino);
            }
            _ => {}
        }
    }
}

/// The directories whose sync makes a change of names durable; the last one decides its order.
fn dirs_of(event: &Event) -> [Ino; 2] {
    match event {
        Event::Link { dir, .. } | Event::Unlink { dir, .. } => [*dir, *dir],
        Event::Rename { from, to, .. } => [from.0, to.0],
        _ => [Ino::MAX, Ino::MAX],
    }
}

fn collect(
    log: &Log,
    dirs: &BTreeMap<Ino, BTreeMap<String, Ino>>,
    files: &[Vec<u8>],
    dir: Ino,
    path: &Path,
    out: &mut Image,
) {
    for (name, ino) in dirs.get(&dir).into_iter().flatten() {
        let path = path.join(name);
        if log.is_dir(*ino) {
            out.0.push((path.clone(), ImageNode::Dir { mode: log.mode(*ino) }));
            collect(log, dirs, files, *ino, &path, out);
        } else {
            out.0.push((path, ImageNode::File { bytes: files[*ino].clone(), mode: log.mode(*ino) }));
        }
    }
}
