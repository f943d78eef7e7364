//! The keeper that systemd is: its descriptor store has the KEK until the next start of the service (sd_notify(3),
//! `FDSTORE=1`; sd_listen_fds(3)).
//!
//! ```text
//! "EKKEPT\0\1" 8 | boot id 16 | store id 16 | slot u16 | KEK 32     in pages behind a descriptor, secret ones where the kernel has them
//! keep     wiped and FDSTOREREMOVE=1 | FDSTORE=1 with the descriptor | BARRIER=1
//! fetch    from what was handed to this start
//! forget   wiped, FDSTOREREMOVE=1 | BARRIER=1
//! ```
//! No other process is needed, no socket that our user could ask at, and no `KillMode`. What it is worth is what the
//! service manager is: root can take a descriptor out of it. Of another boot it is no use, and the manager does not
//! outlive one.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, PoisonError};

use boot::driver::KekKeeper;
use config::Environment;
use host::BootId;
use memory::{LockedBytes, SharedBytes};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use seal::{SlotId, SlotKek, StoreId};
use secret::{Kek, Secret};

/// systemd, as far as it keeps descriptors for us.
pub(crate) struct DescriptorStore {
    notify: OsString,
    boot: BootId,
    /// What it keeps, as this process has it.
    held: Mutex<Option<SharedBytes>>,
}

impl DescriptorStore {
    /// The service manager that has started this process, if it keeps descriptors and says so (`FDSTORE`, systemd 254
    /// and later; before, `Environment=FDSTORE=1` in the unit says it). Takes over what it hands back, so that no child
    /// inherits it.
    pub(crate) fn offered(variables: &Environment, boot: BootId) -> Option<Self> {
        Self::with(variables, boot, handed_back(variables))
    }

    fn with(variables: &Environment, boot: BootId, held: Option<SharedBytes>) -> Option<Self> {
        let room = variables.value("FDSTORE").and_then(|text| text.parse::<u32>().ok()).filter(|room| *room > 0);
        let notify = variables.value("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        if let (Some(notify), Some(_)) = (notify, room) {
            return Some(Self { notify: notify.into(), boot, held: Mutex::new(held) });
        }
        // A manager that is no keeper any more may have the pages of one that was: nobody would wipe them later.
        if let Some(Err(e)) = held.map(|shared| shared.wipe()) {
            tracing::warn!("what systemd keeps of an earlier start may still have the key: {e}");
        }
        None
    }

    fn held(&self) -> MutexGuard<'_, Option<SharedBytes>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept for a store in this boot.
    fn read(&self, shared: &SharedBytes, store: &StoreId) -> io::Result<Option<SlotKek>> {
        let bytes = shared.read(KEPT_BYTES)?;
        let mut rest = bytes.expose();
        let mut is = |wanted: &[u8]| {
            let (head, tail) = rest.split_at(wanted.len().min(rest.len()));
            rest = tail;
            head == wanted
        };
        // All of them, whichever is wrong: nothing here is secret.
        let (magic, boot, of) = (is(MAGIC), is(&self.boot.0), is(&store.0));
        if !magic || (!boot && host::in_force("kept-for-this-boot")) || !of {
            return Ok(None);
        }
        let too_short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (slot, key) = rest.split_first_chunk().ok_or_else(too_short)?;
        let kek = Secret::try_init_with(|kek: &mut [u8; 32]| {
            kek.copy_from_slice(key.get(..32).ok_or_else(too_short)?);
            Ok::<(), io::Error>(())
        })?;
        Ok(Some(SlotKek { slot: SlotId(u16::from_be_bytes(*slot)), kek: Kek::new(kek) }))
    }

    fn drop_held(&self, held: &mut Option<SharedBytes>) -> io::Result<()> {
        // Zeros first: whoever holds a copy of the descriptor has nothing then, whatever becomes of the message.
        let wiped = held.take().map_or(Ok(()), |shared| shared.wipe());
        let told = self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={NAME}"), None);
        wiped.and(told)
    }

    /// Says something to the service manager, with a descriptor or without.
    fn tell(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(&self.notify)?)?;
        socket.set_write_timeout(Some(super::PATIENCE))?;
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::net::sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut with, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Returns when everything that was said has been done.
    fn barrier(&self) -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        self.tell("BARRIER=1", Some(writer.as_fd()))?;
        drop(writer);
        hung_up(&reader)
    }
}

impl KekKeeper for DescriptorStore {
    fn keep(&self, store: &StoreId, kek: &SlotKek) -> io::Result<()> {
        let mut held = self.held();
        if let Some(shared) = &*held
            && let Ok(Some(before)) = self.read(shared, store)
            && before.slot == kek.slot
            && secret::crypto::ct_eq(before.kek.expose(), kek.kek.expose())
        {
            return Ok(());
        }
        if let Err(e) = self.drop_held(&mut held) {
            tracing::warn!("what systemd keeps of before is left behind: {e}");
        }
        let mut bytes = LockedBytes::zeroed(KEPT_BYTES);
        let mut rest = bytes.expose_mut();
        for part in [&MAGIC[..], &self.boot.0, &store.0, &kek.slot.0.to_be_bytes(), kek.kek.expose()] {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        let shared = SharedBytes::new(bytes.expose())?;
        let sent = self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={NAME}"), Some(shared.as_fd()));
        match sent.and_then(|()| self.barrier()) {
            Ok(()) => *held = Some(shared),
            Err(e) => {
                // Perhaps it has it, and perhaps not: then it has zeros.
                shared.wipe()?;
                return Err(e);
            }
        }
        Ok(())
    }

    fn fetch(&self, store: &StoreId) -> io::Result<Option<SlotKek>> {
        self.held().as_ref().map_or(Ok(None), |shared| self.read(shared, store))
    }

    fn forget(&self) -> io::Result<()> {
        let mut held = self.held();
        match &*held {
            None => Ok(()),
            // On return it is gone from the manager too: what starts next is not handed it.
            Some(_) => self.drop_held(&mut held).and_then(|()| self.barrier()),
        }
    }
}

/// What the service manager hands to this start under our name. All that it hands over is closed in children.
fn handed_back(variables: &Environment) -> Option<SharedBytes> {
    let ours = |name: &str| variables.value(name).and_then(|text| text.parse::<i32>().ok());
    // Inherited from somebody else they mean nothing here.
    if ours("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get()) {
        return None;
    }
    let count = ours("LISTEN_FDS").unwrap_or_default().clamp(0, MOST_DESCRIPTORS);
    let mut names = variables.value("LISTEN_FDNAMES").unwrap_or_default().split(':');
    let mut found = None;
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count {
        let fd = memory::inherited(number);
        if names.next() == Some(NAME) {
            found = fd.map(SharedBytes::from_fd);
        }
    }
    found
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(notify: &OsStr) -> io::Result<SocketAddr> {
    match notify.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(notify),
    }
}

/// Waits until nobody has the other end.
fn hung_up(reader: &PipeReader) -> io::Result<()> {
    let mut end = [PollFd::new(reader, PollFlags::empty())];
    let limit = Timespec { tv_sec: super::PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if rustix::event::poll(&mut end, Some(&limit))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the service manager does not answer"));
    }
    Ok(())
}

const NAME: &str = "edgekeep-kek";
const MAGIC: &[u8; 8] = b"EKKEPT\0\x01";
const KEPT_BYTES: usize = 8 + 16 + 16 + 2 + 32;
/// `SD_LISTEN_FDS_START`.
const FIRST_DESCRIPTOR: i32 = 3;
/// More than any unit hands over.
const MOST_DESCRIPTORS: i32 = 64;

#[cfg(test)]
mod tests {
    use testkit::ServiceManager;

    use super::*;

    const STORE: StoreId = StoreId([7; 16]);
    const BOOT: BootId = BootId([1; 16]);

    fn kek(fill: u8) -> SlotKek {
        SlotKek { slot: SlotId(3), kek: Kek::new(Secret::init_with(|k| k.fill(fill))) }
    }

    /// The next start: what the manager keeps is handed to it.
    fn started(manager: &ServiceManager, boot: BootId) -> DescriptorStore {
        let mut kept = manager.kept();
        assert!(kept.len() <= 1, "what is kept anew takes the place of what was kept");
        let held = kept.pop().map(|(name, fd)| {
            assert_eq!(name, NAME);
            SharedBytes::from_fd(fd)
        });
        DescriptorStore { notify: manager.socket().into(), boot, held: Mutex::new(held) }
    }

    fn fetched(keeper: &DescriptorStore, store: &StoreId) -> Option<u8> {
        keeper.fetch(store).unwrap().map(|kek| {
            assert_eq!(kek.slot, SlotId(3));
            kek.kek.expose()[31]
        })
    }

    #[test]
    fn what_is_kept_is_that_stores_in_that_boot_until_it_is_forgotten() {
        let manager = ServiceManager::start(1);
        let keeper = started(&manager, BOOT);
        assert_eq!(fetched(&keeper, &STORE), None);
        keeper.forget().unwrap();
        for fill in [1, 2, 2] {
            keeper.keep(&STORE, &kek(fill)).unwrap();
            assert_eq!(fetched(&started(&manager, BOOT), &STORE), Some(fill), "also in the next start");
        }
        let next = started(&manager, BOOT);
        assert_eq!(fetched(&next, &StoreId([8; 16])), None, "another store's");
        assert_eq!(fetched(&started(&manager, BootId([2; 16])), &STORE), None, "another boot's");
        next.keep(&STORE, &kek(2)).unwrap();
        let copy = SharedBytes::from_fd(manager.kept().pop().unwrap().1);
        next.forget().unwrap();
        assert!(manager.kept().is_empty(), "on return");
        assert_eq!(copy.read(KEPT_BYTES).unwrap().expose(), [0; KEPT_BYTES], "whoever has a copy has zeros");
        assert_eq!(fetched(&started(&manager, BOOT), &STORE), None);
    }

    #[test]
    fn what_the_manager_hands_over_that_is_not_ours_is_nothing() {
        let manager = ServiceManager::start(1);
        let keeper = started(&manager, BOOT);
        for junk in [&b""[..], b"EKKEPT\0\x02", &[0; 74], &[0xff; 74]] {
            *keeper.held() = Some(SharedBytes::new(junk).unwrap());
            assert_eq!(fetched(&keeper, &STORE), None);
        }
        *keeper.held() = Some(SharedBytes::from_fd(io::pipe().unwrap().0.into()));
        assert!(keeper.fetch(&STORE).is_err(), "and told");
        keeper.keep(&STORE, &kek(1)).unwrap();
        assert_eq!(fetched(&keeper, &STORE), Some(1), "it is no way out either");
    }

    #[test]
    fn what_is_handed_back_where_nothing_is_kept_any_more_is_wiped() {
        let held = SharedBytes::new(&[7; KEPT_BYTES]).unwrap();
        let copy = SharedBytes::from_fd(held.as_fd().try_clone_to_owned().unwrap());
        let variables = [("NOTIFY_SOCKET".into(), "/run/systemd/notify".into())];
        assert!(DescriptorStore::with(&Environment::new(variables), BOOT, Some(held)).is_none());
        assert_eq!(copy.read(KEPT_BYTES).unwrap().expose(), [0; KEPT_BYTES]);
    }

    #[test]
    fn a_manager_that_is_gone_or_offers_nothing_is_no_keeper() {
        let manager = ServiceManager::start(1);
        let mut keeper = started(&manager, BOOT);
        keeper.notify = "/nonexistent/notify".into();
        keeper.keep(&STORE, &kek(1)).unwrap_err();
        assert_eq!(fetched(&keeper, &STORE), None);
        let offered = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            DescriptorStore::offered(&Environment::new(variables), BOOT).is_some()
        };
        assert!(offered(&[("NOTIFY_SOCKET", "/run/systemd/notify"), ("FDSTORE", "1")]));
        assert!(!offered(&[("NOTIFY_SOCKET", "/run/systemd/notify"), ("FDSTORE", "0")]));
        assert!(!offered(&[("NOTIFY_SOCKET", "/run/systemd/notify")]));
        assert!(!offered(&[("FDSTORE", "1")]) && !offered(&[("NOTIFY_SOCKET", ""), ("FDSTORE", "1")]));
    }
}
