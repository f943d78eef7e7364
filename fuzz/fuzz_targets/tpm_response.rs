//! Answers of a TPM, or of whoever sits in its place: any bytes give an answer or an error, in every command that reads
//! them.
#![no_main]

use std::sync::Arc;

use host::{BootTime, Clock, OsClock, OsEntropy};
use libfuzzer_sys::fuzz_target;
use tpm::{
    AuthorityKey, NvHandle, NvIndex, NvState, PcrSet, PolicyDigest, SealedObject, Shape, Signature, Tpm, Transport,
    TransportError, parse_response,
};

/// Answers each command with what is left of the input, framed so that the parser gets to the parameters.
struct Hostile {
    bytes: Vec<u8>,
    at: usize,
}

impl Transport for Hostile {
    fn transmit(
        &mut self,
        command: &[u8],
        _deadline: BootTime,
        _clock: &dyn Clock,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, TransportError> {
        let Some(how) = self.bytes.get(self.at) else { return Err(TransportError::Closed) };
        let end = (self.at + 1 + usize::from(*how)).min(self.bytes.len());
        let body = self.bytes[self.at + 1..end].to_vec();
        self.at = end;
        if how & 1 == 1 {
            return Ok(body.into());
        }
        // As it should be: the command's own tag, the right size, success; parameters and authorisation from the input.
        let authorised = command.get(1) == Some(&2);
        let mut answer = vec![0x80, if authorised { 2 } else { 1 }];
        answer.extend_from_slice(&(10 + body.len() as u32).to_be_bytes());
        answer.extend_from_slice(&[0; 4]);
        answer.extend_from_slice(&body);
        Ok(answer.into())
    }
}

fuzz_target!(|bytes: &[u8]| {
    for (handle, authorised) in [(false, false), (true, false), (false, true), (true, true)] {
        let _ = parse_response(bytes, Shape { handle, authorised });
    }
    let Ok(clock) = OsClock::new() else { return };
    // A deadline that has passed: a TPM that says it is busy is not asked again.
    let hostile = Hostile { bytes: bytes.to_vec(), at: 0 };
    let mut tpm = Tpm::new(Box::new(hostile), Arc::new(clock), Arc::new(OsEntropy), BootTime(0));
    let _ = tpm.read_clock();
    let _ = tpm.read_lockout();
    if let Ok(set) = PcrSet::new([0, 7, 11, 13]) {
        let _ = tpm.read_pcrs(set);
    }
    if let Ok(key) = tpm.storage_key() {
        let key = key.pin();
        let _ = tpm.seal(&key, &Default::default(), None, &[7; 32]);
        let object = SealedObject { public: vec![1; 8], private: vec![2; 8] };
        if let (Ok(object), Ok(session)) = (tpm.try_load(&key, &object), tpm.policy_session(&key)) {
            let _ = tpm.unseal(session, &object, None);
        }
        let counter = NvIndex::counter(NvHandle::drawn(1), PolicyDigest::default());
        let _ = tpm.nv_define(&key, &counter, None);
        let _ = tpm.nv_name(counter.handle());
        let _ = tpm.nv_read_counter(counter.handle());
        let secret = NvIndex::secret(NvHandle::drawn(2), PolicyDigest::default(), false, true);
        let _ = tpm.keep(&key);
        if let Ok(mut session) = tpm.policy_session(&key) {
            let _ = tpm.load(&key, &object, &mut session);
            let _ = tpm.nv_shown(&mut session, &secret, NvState::READABLE);
            let _ = tpm.policy_digest(&session);
            let _ = tpm.policy_secret(&session, counter.handle());
            let authority = AuthorityKey::P256(Box::new([1; 64]));
            let signature = Signature::P256(Box::new([2; 64]));
            let _ = tpm.policy_authorize(&session, &PolicyDigest::default(), &authority, &signature);
            let _ = tpm.nv_read_secret(&mut session, &secret, None);
            let _ = tpm.nv_read_lock(session, &secret);
        }
    }
});
