//! Commands by the byte, and answers of every kind.

use std::sync::Mutex;

use host::{OsClock, OsEntropy};
use proptest::prelude::*;

use super::registers::pcr_answer;
use super::*;
use crate::pcr::{PcrSet, PcrValues};
use crate::policy::{ClockCondition, PolicyCommand, PolicyDigest};
use crate::public::SealedObject;

/// Writes the commands down, and answers as it is told; when that is used up, with a failure.
#[derive(Clone, Default)]
struct Scripted {
    sent: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    manages: bool,
}

impl Scripted {
    /// Answers in order; the last is given first.
    fn new(answers: &[&str]) -> Self {
        let answers = answers.iter().rev().map(|a| hex::decode(a.replace(' ', "")).unwrap()).collect();
        Self { answers: Arc::new(Mutex::new(answers)), ..Self::default() }
    }

    fn tpm(&self) -> Tpm {
        let clock = Arc::new(OsClock::new().unwrap());
        let deadline = clock.boottime().plus(Duration::from_secs(10));
        Tpm::new(Box::new(self.clone()), clock, Arc::new(OsEntropy), deadline)
    }

    fn sent(&self) -> Vec<String> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

impl Transport for Scripted {
    fn transmit(&mut self, command: &[u8], _: BootTime, _: &dyn Clock) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        self.sent.lock().unwrap().push(hex::encode(command));
        let answer = self.answers.lock().unwrap().pop();
        Ok(Zeroizing::new(answer.unwrap_or_else(|| hex::decode("80010000000a00000101").unwrap())))
    }

    fn flushes(&self) -> bool {
        self.manages
    }
}

fn hex_of(parts: &[&str]) -> String {
    parts.concat().replace(' ', "")
}

/// A storage key of the template, at the curve's base point.
fn key_answer() -> String {
    let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    let y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let area = format!("0023000b00030472000000060080004300100003001000 20{x}0020{y}").replace(' ', "");
    let body = format!("005a{area}");
    let parameters = format!("{:08x}{body}", body.len() / 2);
    let rest = format!("80000000{parameters}0000010000");
    format!("8002{:08x}00000000{rest}", 10 + rest.len() / 2)
}

const SESSION: &str =
    "80010000003000000000 03000000 0020 0101010101010101010101010101010101010101010101010101010101010101";
const DONE: &str = "80010000000a00000000";

#[test]
fn commands_without_a_session_by_the_byte() {
    let scripted = Scripted::default();
    let mut tpm = scripted.tpm();
    assert!(tpm.read_pcrs(PcrSet::new([7, 11]).unwrap()).is_err());
    assert!(tpm.extend_pcr_unproven(13, &[0xab; 32]).is_err());
    assert!(tpm.read_clock().is_err());
    assert!(tpm.read_lockout().is_err());
    assert!(tpm.storage_key().is_err());
    let zeros = "00".repeat(32);
    let digest = "ab".repeat(32);
    let expected = [
        hex_of(&["8001 00000014 0000017e", "00000001 000b 03 800800"]),
        hex_of(&["8002 00000041 00000182 0000000d 00000009 40000009 0000 00 0000", "00000001 000b", &digest]),
        hex_of(&["8001 0000000a 00000181"]),
        hex_of(&["8001 00000016 0000017a 00000006 0000020e 00000002"]),
        hex_of(&[
            "8002 00000083 00000131 40000001 00000009 40000009 0000 00 0000",
            "0004 0000 0000",
            "005a 0023 000b 00030472 0000 0006 0080 0043 0010 0003 0010 0020",
            &zeros,
            "0020",
            &zeros,
            "0000 00000000",
        ]),
    ];
    assert_eq!(scripted.sent(), expected);
}

#[test]
fn a_policy_session_by_the_byte() {
    let scripted = Scripted::new(&[&key_answer(), SESSION, DONE, DONE, DONE, DONE, DONE, DONE]);
    let mut tpm = scripted.tpm();
    let key = tpm.storage_key().unwrap().pin();
    let session = tpm.policy_session(&key).unwrap();
    tpm.policy_pcr(&session, PcrSet::new([7]).unwrap(), None).unwrap();
    tpm.policy_pcr(&session, PcrSet::new([7]).unwrap(), Some(&PcrValues::new([(7, [7; 32])]))).unwrap();
    tpm.policy_command(&session, PolicyCommand::NvReadLock).unwrap();
    tpm.policy_or(&session, &[PolicyDigest([1; 32]), PolicyDigest([2; 32])]).unwrap();
    tpm.policy_clock(&session, ClockCondition::TimeBelow(3000)).unwrap();
    tpm.policy_auth_value(&session).unwrap();
    assert_eq!(tpm.commands(), 8);
    drop(tpm);
    let sent = scripted.sent();
    // StartAuthSession: our nonce and our half of the exchange are new each time; all around them is fixed.
    let start = &sent[1];
    assert_eq!(start.len(), 2 * 131);
    assert_eq!(start[..40], hex_of(&["8001 00000083 00000176 80000000 40000007 0020"]));
    assert_eq!(start[104..112], *"00440020");
    assert_eq!(start[244..], hex_of(&["01 0006 0080 0043 000b"]));
    let expected = hex::encode(secret::crypto::sha256(&[&[7; 32]]));
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    assert_eq!(
        sent[2..],
        [
            hex_of(&["8001 0000001a 0000017f 03000000 0000 00000001 000b 03 800000"]),
            hex_of(&["8001 0000003a 0000017f 03000000 0020", &expected, "00000001 000b 03 800000"]),
            hex_of(&["8001 00000012 0000016c 03000000 0000014f"]),
            hex_of(&["8001 00000056 00000171 03000000 00000002 0020", &one, "0020", &two]),
            hex_of(&["8001 0000001c 0000016d 03000000 0008 0000000000000bb8 0000 0005"]),
            hex_of(&["8001 0000000e 0000016b 03000000"]),
            // What is still loaded goes, the newest first.
            hex_of(&["8001 0000000e 00000165 03000000"]),
            hex_of(&["8001 0000000e 00000165 80000000"]),
        ]
    );
}

/// Three sessions are as many as a resource manager keeps: what a fourth needs goes when it is wanted, and nothing else.
#[test]
fn behind_a_resource_manager_what_is_done_with_goes_when_its_room_is_wanted() {
    let session = |n: u8| SESSION.replace(" 03000000", &format!(" 030000{n:02x}"));
    let sessions: Vec<String> = (0..6).map(session).collect();
    let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|n: usize| sessions[n].as_str());
    let key = key_answer();
    let scripted = Scripted { manages: true, ..Scripted::new(&[&key, a, b, c, DONE, d, DONE, e, f]) };
    let mut tpm = scripted.tpm();
    let key = tpm.storage_key().unwrap().pin();
    let kept = tpm.policy_session(&key).unwrap();
    for _ in 0..4 {
        let session = tpm.trial_session(&key).unwrap();
        tpm.end(session).unwrap();
    }
    let flushes = |sent: Vec<String>| -> Vec<(usize, String)> {
        sent.into_iter()
            .enumerate()
            .filter(|(_, c)| c[12..20] == *"00000165")
            .map(|(n, c)| (n, c[20..].into()))
            .collect()
    };
    assert_eq!(flushes(scripted.sent()), [(4, "03000001".into()), (6, "03000002".into())], "the oldest first");
    // Nothing of another kind is in the way of an object, and what is in use is not taken away.
    assert!(tpm.storage_key().is_err());
    tpm.end(kept).unwrap();
    drop(tpm);
    assert_eq!(flushes(scripted.sent()), [], "the close does that");
}

#[test]
fn a_busy_tpm_is_asked_again() {
    let busy = "80010000000a00000922";
    let scripted =
        Scripted::new(&[busy, busy, "80010000002300000000 0000000000001388 0000000000001388 00000003 00000001 01"]);
    let clocks = scripted.tpm().read_clock().unwrap();
    assert_eq!(clocks, Clocks { since_start: Duration::from_secs(5), resets: 3, resumes: 1 });
    let sent = scripted.sent();
    assert!(sent.len() == 3 && sent.iter().all(|c| *c == sent[0]));
}

#[test]
fn registers_that_were_not_asked_for_or_are_missing() {
    let read = |parameters: &str| {
        let parameters = hex::decode(parameters.replace(' ', "")).unwrap();
        pcr_answer(&parameters, PcrSet::new([7, 11]).unwrap()).map_err(|e| e.0)
    };
    let value = "07".repeat(32);
    let head = "00000001 00000001 000b 03";
    assert_eq!(read(&format!("{head} 800000 00000001 0020 {value}")), Ok(PcrValues::new([(7, [7; 32])])));
    for (parameters, defect) in [
        (format!("00000001 00000001 0004 03 800000 00000001 0020 {value}"), "another bank than SHA-256"),
        (format!("{head} 000000 00000000"), "other registers than were asked for"),
        (format!("{head} 000100 00000001 0020 {value}"), "other registers than were asked for"),
        (format!("{head} 800000 00000002 0020 {value}"), "another number of values than of registers"),
        (format!("{head} 800000 00000001 0014 {}", "07".repeat(20)), "a value of the wrong length"),
        (format!("{head} 800000 00000001 0020 {value} 00"), "more follows than belongs to it"),
        (head.to_owned(), "it ends too early"),
    ] {
        assert_eq!(read(&parameters), Err(defect), "{parameters}");
    }
}

proptest! {
    /// As the fuzz target `tpm_response`: whoever answers, each command ends in a value or an error.
    #[test]
    fn any_answers_end_in_a_value_or_an_error(answers in proptest::collection::vec(any::<Vec<u8>>(), 0..12), framed: u16) {
        let answers = answers.into_iter().enumerate().map(|(i, body)| {
            if framed >> i & 1 == 0 {
                return body;
            }
            let tag = if body.first().is_some_and(|b| b & 1 == 1) { 2 } else { 1 };
            let size = (10 + body.len() as u32).to_be_bytes();
            [&[0x80, tag][..], &size, &[0; 4], &body].concat()
        });
        let mut script: Vec<Vec<u8>> = answers.collect();
        // Somewhere in the middle, a good key: else nothing behind it is ever reached.
        script.insert(script.len() / 2, hex::decode(key_answer()).unwrap());
        let scripted = Scripted { answers: Arc::new(Mutex::new(script)), ..Scripted::default() };
        let mut tpm = scripted.tpm();
        while !scripted.answers.lock().unwrap().is_empty() {
            let _ = tpm.read_clock();
            let _ = tpm.read_lockout();
            let _ = tpm.read_pcrs(PcrSet::new([0, 7, 11]).unwrap());
            let Ok(key) = tpm.storage_key() else { continue };
            let key = key.pin();
            prop_assert!(tpm.seal(&key, &PolicyDigest::default(), None, &[7; 32]).is_err(), "no answer proves the session's key");
            let object = SealedObject { public: vec![1; 8], private: vec![2; 8] };
            if let (Ok(object), Ok(session)) = (tpm.try_load(&key, &object), tpm.policy_session(&key)) {
                prop_assert!(tpm.unseal(session, &object, None).is_err());
            }
            if let Ok(mut session) = tpm.policy_session(&key) {
                prop_assert!(tpm.load(&key, &object, &mut session).is_err(), "no answer proves the session's key");
            }
            let kept = tpm.keep(&key);
            prop_assert!(kept.is_err() || kept.is_ok_and(|kept| kept.is_none_or(|kept| kept.key().name() == key.name())));
        }
    }
}
