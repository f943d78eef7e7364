//! Random bytes as an argument.

/// A source of random bytes that is fit for keys.
pub trait Entropy: Send + Sync {
    /// Fills `out`; blocks early in a boot until the kernel's generator is seeded, and never returns weak bytes.
    fn fill(&self, out: &mut [u8]);
}

/// `getrandom(2)` without `GRND_INSECURE` or `/dev/urandom`: it waits until the kernel's pool is initialised, so that
/// a key made in the first second of a first boot is as good as any other.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            match rustix::rand::getrandom(&mut out[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                // ENOSYS or a seccomp filter: there is no second best, and going on would make guessable keys.
                Err(e) => panic!("the kernel gives no random bytes: {e}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_all_of_a_long_buffer() {
        let mut a = [0u8; 1000];
        OsEntropy.fill(&mut a);
        assert!(a[500..].iter().any(|b| *b != 0));
    }
}
