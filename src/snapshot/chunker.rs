//! Where a file's content is cut (FastCDC 2020, normalised chunking level 2; keyed gear table).
//!
//! The algorithm is that of "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems" (Xia et al.,
//! IEEE TPDS 2020), without its two-bytes-at-a-time variant. The gear table comes out of the repository's secrets, so that
//! chunk lengths tell an observer nothing about known files. The parameters and the key are fixed at `init`.

use crate::repo::ChunkerParams;

/// Cuts content where the content itself says so.
#[derive(Clone)]
pub struct Cdc {
    gear: Box<[u64; 256]>,
    min: usize,
    avg: usize,
    max: usize,
    /// More bits than the average calls for, before the average is reached.
    hard: u64,
    /// Fewer bits, behind it.
    easy: u64,
}

impl Cdc {
    /// Makes a chunker for those sizes; `key` decides on the cuts.
    pub fn new(params: &ChunkerParams, key: [u8; 32]) -> Cdc {
        let mut bytes = [0u8; 256 * 8];
        blake3::Hasher::new_keyed(&key).update(b"gear").finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0u64; 256]);
        for (value, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut array = [0; 8];
            array.copy_from_slice(bytes);
            *value = u64::from_le_bytes(array);
        }
        let bits = params.cdc_avg.max(64).ilog2();
        // The upper bits of a gear hash depend on the most bytes.
        let mask = |bits: u32| !0u64 << (64 - bits);
        Cdc {
            gear,
            min: params.cdc_min as usize,
            avg: params.cdc_avg as usize,
            max: params.cdc_max as usize,
            hard: mask(bits + 2),
            easy: mask(bits - 2),
        }
    }

    /// The longest chunk that it makes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns the length of the first chunk of `data`. `data` must hold [`Cdc::max`] bytes or be all that is left.
    pub fn cut(&self, data: &[u8]) -> usize {
        let end = data.len().min(self.max);
        if end <= self.min {
            return end;
        }
        let middle = end.min(self.avg);
        let mut hash = 0u64;
        for (at, byte) in data[self.min..middle].iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[*byte as usize]);
            if hash & self.hard == 0 {
                return self.min + at + 1;
            }
        }
        for (at, byte) in data[middle..end].iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[*byte as usize]);
            if hash & self.easy == 0 {
                return middle + at + 1;
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Cdc {
        let params = ChunkerParams { cdc_min: 256, cdc_avg: 1024, cdc_max: 4096, ..ChunkerParams::default() };
        Cdc::new(&params, [7; 32])
    }

    fn cuts(cdc: &Cdc, data: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = data;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(cdc.cut(rest));
            chunks.push(chunk.to_vec());
            rest = behind;
        }
        chunks
    }

    fn noise(seed: u8, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
        out
    }

    proptest! {
        #[test]
        fn chunks_are_the_content_within_bounds(seed in any::<u8>(), len in 0usize..60_000) {
            let (cdc, data) = (small(), noise(seed, len));
            let chunks = cuts(&cdc, &data);
            prop_assert_eq!(chunks.concat(), data);
            for chunk in chunks.iter().rev().skip(1) {
                prop_assert!((256..=4096).contains(&chunk.len()));
            }
        }

        #[test]
        fn an_insertion_leaves_distant_chunks_alone(seed in any::<u8>(), at in 0usize..20_000, extra in 1usize..500) {
            let (cdc, data) = (small(), noise(seed, 200_000));
            let mut changed = data.clone();
            changed.splice(at..at, noise(seed.wrapping_add(1), extra));
            let old: std::collections::HashSet<_> = cuts(&cdc, &data).into_iter().collect();
            let new = cuts(&cdc, &changed);
            let kept: usize = new.iter().filter(|c| old.contains(*c)).map(Vec::len).sum();
            prop_assert!(kept > 150_000, "{kept} of {} bytes kept", changed.len());
        }
    }

    #[test]
    fn the_average_is_near_what_was_asked_for() {
        let cdc = Cdc::new(&ChunkerParams::default(), [1; 32]);
        let data = noise(1, 64 << 20);
        let average = data.len() / cuts(&cdc, &data).len();
        assert!((400_000..800_000).contains(&average), "{average}");
    }
}
