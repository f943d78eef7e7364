//! The way to a TPM breaks in the middle of a making: what the TPM holds of it by then is taken back by another way, and
//! what stays is told.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::between::{code, message};
use super::*;

const NV_DEFINE_SPACE: u32 = 0x12A;

/// What does not arrive any more: a command, or the answer to it; or it has something behind it, and it is for the
/// other side to hang up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Command,
    Answer,
    End,
}

/// A socket in front of a TPM that serves one connection at a time, as swtpm does, and breaks off.
struct HangingUp {
    dir: tempfile::TempDir,
    over: Arc<AtomicBool>,
    broken_off: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HangingUp {
    /// At the command `at`, the definition of an index being the first; once, or at each one from there on.
    fn new(tpm: &Swtpm, lost: Lost, at: u32, for_good: bool) -> Self {
        let dir = testkit::scratch_dir();
        let listener = UnixListener::bind(dir.path().join("way")).unwrap();
        let (over, broken_off) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (ended, breaks, tpm) = (Arc::clone(&over), Arc::clone(&broken_off), tpm.socket());
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            for front in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (mut front, mut behind) = (front.unwrap(), UnixStream::connect(&tpm).unwrap());
                while let Some(command) = message(&mut front) {
                    seen += u32::from(seen > 0 || code(&command) == NV_DEFINE_SPACE);
                    let now = seen == at || for_good && seen > at;
                    breaks.fetch_or(now, Ordering::SeqCst);
                    if now && lost == Lost::Command {
                        break;
                    }
                    behind.write_all(&command).unwrap();
                    let mut answer = message(&mut behind).expect("swtpm answers");
                    if now && lost == Lost::End {
                        answer.push(0);
                    }
                    if now && lost == Lost::Answer || front.write_all(&answer).is_err() {
                        break;
                    }
                }
            }
        });
        Self { dir, over, broken_off, thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("way")
    }

    fn has_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::SeqCst)
    }
}

impl Drop for HangingUp {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.socket());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A making by each way that leaves an index, beside the slot of before where one is needed.
type Make = fn(&Device, PathBuf, Option<&SlotPublic>) -> Result<Provisioned, SourceError>;

const MAKINGS: [Make; 3] = [
    |device, at, _| device.source_at(at, Some(13)).provision(&limited(2), &NoAuth, soon()),
    |device, at, _| nv::source_at(device, at).provision(&limited(1), &NoAuth, soon()),
    |device, at, like| {
        let next = PcrValues::new([(7, after(0x77)), (11, after(0xcc))]);
        nv::source_at(device, at).predict(like.unwrap(), &next, &NoAuth, soon())
    },
];

#[test]
fn a_making_that_is_cut_off_anywhere_leaves_no_index() {
    for (which, make) in MAKINGS.iter().enumerate() {
        for lost in [Lost::Command, Lost::Answer, Lost::End] {
            let Some(mut device) = Device::new() else { return };
            let like = (which == 2).then(|| MAKINGS[1](&device, device.tpm.socket(), None).unwrap().public);
            let before = device.tpm.nv_indices();
            let mut cut = 0;
            loop {
                // As a resource manager does at the close: what was loaded is gone.
                device.reboot();
                let way = HangingUp::new(&device.tpm, lost, cut + 1, false);
                let made = make(&device, way.socket(), like.as_ref());
                if !way.has_broken_off() {
                    assert!(made.is_ok(), "{made:?}");
                    break;
                }
                drop(way);
                if let Ok(made) = made {
                    // All was there, and the rest was tidying up.
                    device.reboot();
                    let mut source = SOURCES[usize::from(which > 0)](&device, device.tpm.socket());
                    source.discard(&made.public, &[], &NoAuth, soon()).unwrap();
                }
                assert_eq!(device.tpm.nv_indices(), before, "making {which}, {lost:?} {cut}");
                cut += 1;
            }
            assert!(cut > 4, "making {which} was cut off {cut} times");
        }
    }
}

/// An index that was there, and is not written, looks like the one that was to be made: as a counter does in a boot in
/// which nobody has asked yet.
#[test]
fn an_index_of_another_slot_is_not_taken_back() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = device.provision(&limited(2)).unwrap();
    device.reboot();
    let [index] = device.tpm.nv_indices()[..] else { panic!() };
    // The same number first, of two that are drawn.
    let drawn = Arc::new(Drawing { byte: index.to_be_bytes()[3], first: AtomicBool::new(true) });
    let way = HangingUp::new(&device.tpm, Lost::Answer, 1, false);
    let clock = Arc::new(OsClock::new().unwrap());
    let lock = device.dir.path().join("tpm.lock");
    let mut source = TpmSource::new(way.socket(), Some(13), lock, Arc::new(OsDisk), clock, drawn);
    assert!(source.provision(&limited(2), &NoAuth, soon()).is_err());
    drop(way);
    device.reboot();
    assert_eq!(device.tpm.nv_indices(), [index]);
    assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
}

/// Gives `byte` to the first who wants one.
struct Drawing {
    byte: u8,
    first: AtomicBool,
}

impl host::Entropy for Drawing {
    fn fill(&self, out: &mut [u8]) {
        OsEntropy.fill(out);
        if let [one] = out
            && self.first.swap(false, Ordering::SeqCst)
        {
            *one = self.byte;
        }
    }
}

#[test]
fn an_index_that_stays_is_told_by_its_number() {
    let Some(mut device) = Device::new() else { return };
    for make in &MAKINGS[..2] {
        device.reboot();
        let before = device.tpm.nv_indices();
        let way = HangingUp::new(&device.tpm, Lost::Answer, 2, true);
        let told = Told::default();
        let made = tracing::subscriber::with_default(told.clone(), || make(&device, way.socket(), None));
        assert!(matches!(made, Err(SourceError::Unreachable { .. })), "{made:?}");
        drop(way);
        let stays = device.tpm.nv_indices().into_iter().find(|index| !before.contains(index)).unwrap();
        let text = format!("NV index {stays:#010x} of a slot that did not come about stays in the TPM: ");
        let told = told.0.lock().unwrap();
        assert!(told.iter().any(|line| line.starts_with(&text)), "{told:?}");
    }
}

/// What is written into the log.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Told {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            self.0.lock().unwrap().push(format!("{value:?}"));
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
