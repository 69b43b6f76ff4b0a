//! Approximate unique users: an Apache DataSketches HLL with 2¹² registers (1.04/√4096 = 1.6 % standard error).
//! Merging is associative and commutative in the estimate; the same set of users fed in the same order gives
//! the same bytes, which the exact path relies on (it feeds sorted hashes).

use datasketches::hll::{HllSketch, HllType, HllUnion};

const LG_K: u8 = 12;

/// One standard error of the estimate, relative (1.04 / √2¹²), in parts per million.
pub const STANDARD_ERROR_PPM: u64 = 16_250;

/// The union of many sketches while it is made: adding one costs what that one holds, where [`Sketch::merge`] copies
/// both.
#[derive(Debug, Clone)]
pub struct SketchUnion(HllUnion);

impl Default for SketchUnion {
    #[allow(clippy::expect_used)] // as for [`Sketch::new`]
    fn default() -> Self {
        Self(HllUnion::new(LG_K).expect("12 register bits are allowed"))
    }
}

impl SketchUnion {
    /// Adds a sketch's users.
    pub fn add(&mut self, sketch: &Sketch) {
        self.0.update(&sketch.0);
    }

    /// About how many users.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        Sketch(self.0.to_sketch(HllType::Hll8)).estimate()
    }
}

/// The bytes are not a sketch.
#[derive(Debug, thiserror::Error)]
#[error("not a sketch: {0}")]
pub struct BadSketch(String);

/// A mergeable set of users that knows only about how many there are.
#[derive(Debug, Clone)]
pub struct Sketch(HllSketch);

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// The empty sketch.
    #[must_use]
    #[allow(clippy::expect_used)] // 12 is a valid size by the library's own documentation
    pub fn new() -> Self {
        Self(HllSketch::new(LG_K, HllType::Hll8).expect("12 registers bits are allowed"))
    }

    /// The hash under which a user is added: fixed, so that every path adds the same value.
    #[must_use]
    pub fn hash(user: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64(user.as_bytes())
    }

    /// Adds a user by [`Sketch::hash`].
    pub fn add(&mut self, hash: u64) {
        self.0.update(hash);
    }

    /// The union of both.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut union = SketchUnion::default();
        union.add(self);
        union.add(other);
        Self(union.0.to_sketch(HllType::Hll8))
    }

    /// About how many users.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn estimate(&self) -> u64 {
        self.0.estimate().round() as u64
    }

    /// Whether no user was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sketch in the library's portable form (readable by the C++ and Java ones). Reading the bytes and
    /// writing them again gives the same bytes, so that stored sketches can be compared.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.serialize();
        sort_coupons(&mut bytes);
        bytes
    }

    /// From [`Sketch::to_bytes`].
    ///
    /// # Errors
    /// [`BadSketch`] when the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSketch> {
        HllSketch::deserialize(bytes).map(Self).map_err(|e| BadSketch(e.to_string()))
    }
}

/// Sorts the coupons of a sketch that is still a list or a set of them: the library writes them in the order of
/// its hash table, which depends on how the table came about. No reader minds their order.
fn sort_coupons(bytes: &mut [u8]) {
    const REGISTERS: u8 = 2;
    let (Some(preamble_words), Some(mode)) = (bytes.first().copied(), bytes.get(7).copied()) else { return };
    if mode & 3 == REGISTERS {
        return;
    }
    let Some(coupons) = bytes.get_mut(usize::from(preamble_words) * 4..) else { return };
    let (coupons, _) = coupons.as_chunks_mut::<4>();
    coupons.sort_unstable_by_key(|c| u32::from_le_bytes(*c));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_read_back_to_the_same_bytes(users in prop::collection::vec(any::<u64>(), 0..3_000)) {
            let mut sketch = Sketch::new();
            users.iter().for_each(|u| sketch.add(*u));
            let bytes = sketch.to_bytes();
            let back = Sketch::from_bytes(&bytes).unwrap();
            prop_assert_eq!(back.to_bytes(), bytes);
            prop_assert_eq!(back.estimate(), sketch.estimate());
            prop_assert_eq!(back.merge(&Sketch::new()).estimate(), sketch.estimate());
        }

        #[test]
        fn few_users_give_the_same_bytes_in_any_order(mut users in prop::collection::vec(any::<u64>(), 0..200)) {
            let bytes = |users: &[u64]| {
                let mut sketch = Sketch::new();
                users.iter().for_each(|u| sketch.add(*u));
                sketch.to_bytes()
            };
            let before = bytes(&users);
            users.reverse();
            prop_assert_eq!(bytes(&users), before);
        }
    }

    proptest! {
        #[test]
        fn a_union_of_many_is_what_merging_them_one_by_one_gives(
            parts in prop::collection::vec(prop::collection::vec(0..900_u64, 0..300), 0..6),
        ) {
            let (mut merged, mut union) = (Sketch::new(), SketchUnion::default());
            for users in &parts {
                let mut sketch = Sketch::new();
                users.iter().for_each(|u| sketch.add(Sketch::hash(&u.to_string())));
                merged = merged.merge(&sketch);
                union.add(&sketch);
            }
            prop_assert_eq!(union.estimate(), merged.estimate());
        }
    }

    #[test]
    fn a_merge_counts_each_user_once_within_three_standard_errors() {
        let (mut a, mut b) = (Sketch::new(), Sketch::new());
        for i in 0..60_000_u64 {
            let hash = Sketch::hash(&format!("user-{i}"));
            if i < 40_000 {
                a.add(hash);
            }
            if i >= 20_000 {
                b.add(hash);
            }
        }
        let both = Sketch::from_bytes(&a.merge(&b).to_bytes()).unwrap();
        let error_ppm = both.estimate().abs_diff(60_000) * 1_000_000 / 60_000;
        assert!(error_ppm < 3 * STANDARD_ERROR_PPM, "{error_ppm}");
        assert_eq!(a.merge(&b).estimate(), b.merge(&a).estimate());
    }
}
