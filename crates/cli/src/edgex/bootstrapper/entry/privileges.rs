//! Becoming an ordinary user, for good.

use std::path::Path;

use host::{Disk, Owner};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{
    no_new_privs, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid, set_thread_uid,
};

/// Gives up every right but those of `to`: other groups first, then the group, then the user, for each needs the rights
/// that the next one takes. Then looks whether it is so: a call that did less than it said has made root of many a
/// daemon.
///
/// The kernel keeps these for each thread, and the program takes over those of the thread that calls `execve`: it must
/// be this one, with no work left on others.
///
/// # Errors
/// [`PrivilegeError`]; nothing may be started then.
pub(super) fn become_user(to: Owner) -> Result<(), PrivilegeError> {
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
    let failed = |what| move |cause| PrivilegeError::Call { what, cause };
    if geteuid().is_root() && host::in_force("entry-drops-privileges") {
        set_thread_groups(&[gid]).map_err(failed("leave its groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(failed("change its group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(failed("change its user"))?;
    }
    // A program with the set-user-id bit is no way back either.
    set_no_new_privs(true).map_err(failed("give up privileges"))?;
    if !host::in_force("entry-drops-privileges") {
        return Ok(());
    }
    let groups = getgroups().map_err(failed("see its groups"))?;
    let is = [getuid(), geteuid()] == [uid; 2] && [getgid(), getegid()] == [gid; 2] && groups.iter().all(|g| *g == gid);
    let back = to.uid != 0 && set_thread_uid(Uid::ROOT).is_ok();
    if !is || back || !no_new_privs().map_err(failed("see its privileges"))? {
        return Err(PrivilegeError::Kept { wanted: to });
    }
    Ok(())
}

/// The process is not the user that it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivilegeError {
    /// The kernel refused.
    #[error("this process cannot {what}")]
    Call {
        what: &'static str,
        #[source]
        cause: Errno,
    },
    /// It did not refuse, and yet.
    #[error("this process is not user {}:{} and no more", wanted.uid, wanted.gid)]
    Kept { wanted: Owner },
}

/// The numbers of a user of /etc/passwd: its lines are `name:password:uid:gid:...` (passwd(5)).
pub(super) fn user_of_passwd(disk: &dyn Disk, name: &str) -> Option<Owner> {
    let text = disk.read(Path::new("/etc/passwd"), MAX_PASSWD_BYTES).ok()?;
    entry_of(std::str::from_utf8(&text).ok()?, name)
}

fn entry_of(text: &str, name: &str) -> Option<Owner> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        found.then_some(())?;
        Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

/// More users than any image has.
const MAX_PASSWD_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\npostgresql:x:1:1::/:\nbroken\npostgres:x:70:71::/var/lib/postgresql:/bin/sh\n";
        assert_eq!(entry_of(text, "postgres"), Some(Owner { uid: 70, gid: 71 }));
        assert_eq!(entry_of(text, "postgre"), None);
        assert_eq!(entry_of("postgres:x:many:1:\n", "postgres"), None);
    }

    #[test]
    fn who_is_not_root_becomes_nobody_else() {
        if geteuid().is_root() {
            // On a thread of its own: what it gives up it never gets back.
            let other = std::thread::spawn(|| {
                become_user(Owner { uid: 1501, gid: 1502 }).unwrap();
                become_user(Owner { uid: 1601, gid: 1602 })
            });
            let refused = other.join().unwrap();
            assert!(matches!(refused, Err(PrivilegeError::Kept { .. })), "{refused:?}");
        } else {
            assert!(matches!(become_user(Owner { uid: 1501, gid: 1502 }), Err(PrivilegeError::Kept { .. })));
        }
    }
}
