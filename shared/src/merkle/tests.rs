//! The tree against the recursive definition of RFC 6962, and everything that is not a proof.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// MTH of RFC 6962, section 2.1, as it is written there.
fn by_the_book(hashes: &[Hash256]) -> Hash256 {
    match hashes {
        [] => Hash256::of(b""),
        [one] => *one,
        many => {
            let k = (0..).map(|e| 1_usize << e).take_while(|k| *k < many.len()).last().unwrap();
            let (left, right) = (by_the_book(&many[..k]), by_the_book(&many[k..]));
            Hash256::of(&[&[1][..], &left.0, &right.0].concat())
        }
    }
}

fn leaves(keys: BTreeSet<u32>) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = keys
        .into_iter()
        .map(|k| Leaf { key: Hash256::of(&k.to_le_bytes()), body: Hash256::of(format!("body {k}").as_bytes()) })
        .collect();
    leaves.sort_by_key(|leaf| leaf.key);
    leaves
}

fn some_leaves() -> impl Strategy<Value = Vec<Leaf>> {
    proptest::collection::btree_set(any::<u32>(), 0..200).prop_map(leaves)
}

fn hashes(leaves: &[Leaf]) -> Vec<Hash256> {
    leaves.iter().map(Leaf::hash).collect()
}

fn placed(leaves: &[Leaf], index: usize) -> Placed {
    Placed { leaf: leaves[index], index: index as u64, path: path(&hashes(leaves), index).unwrap() }
}

/// The leaves beside a key that is in no leaf.
fn beside(leaves: &[Leaf], key: &Hash256) -> (Option<Placed>, Option<Placed>) {
    let at = leaves.partition_point(|leaf| leaf.key < *key);
    (at.checked_sub(1).map(|i| placed(leaves, i)), (at < leaves.len()).then(|| placed(leaves, at)))
}

fn flipped(hash: Hash256, bit: usize) -> Hash256 {
    let mut bytes = hash.0;
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash256(bytes)
}

proptest! {
    #[test]
    fn the_root_is_that_of_rfc_6962_and_so_is_that_over_aligned_subtrees(
        leaves in some_leaves(),
        height in 0..6_u32,
    ) {
        let hashes = hashes(&leaves);
        let root = root_of(&hashes);
        prop_assert_eq!(root, Root { root: by_the_book(&hashes), leaves: leaves.len() as u64 });
        let blocks: Vec<Hash256> = hashes.chunks(1 << height).map(|block| root_of(block).root).collect();
        prop_assert_eq!(root_of(&blocks).root, root.root);
    }

    #[test]
    fn every_leaf_is_proven_by_no_more_hashes_than_the_tree_is_tall(leaves in some_leaves()) {
        let hashes = hashes(&leaves);
        let tree = root_of(&hashes);
        for index in 0..leaves.len() {
            let placed = placed(&leaves, index);
            prop_assert!(placed.is_in(&tree));
            prop_assert!(placed.path.len() <= hashes.len().next_power_of_two().trailing_zeros() as usize);
        }
        prop_assert_eq!(path(&hashes, leaves.len()), None);
    }

    #[test]
    fn a_proof_with_anything_changed_is_none(
        leaves in some_leaves(),
        at in any::<Index>(),
        step in any::<Index>(),
        bit in 0..256_usize,
        other in 1..300_u64,
    ) {
        prop_assume!(!leaves.is_empty());
        let tree = root_of(&hashes(&leaves));
        let good = placed(&leaves, at.index(leaves.len()));
        let leaf = good.leaf;
        let with = |change: &dyn Fn(&mut Placed)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad
        };
        let mut bad = vec![
            with(&|p| p.leaf.key = flipped(leaf.key, bit)),
            with(&|p| p.leaf.body = flipped(leaf.body, bit)),
            with(&|p| p.index = (p.index + other) % 300),
            with(&|p| p.path.push(flipped(leaf.key, bit))),
            with(&|p| p.path.insert(0, flipped(leaf.key, bit))),
        ];
        if !good.path.is_empty() {
            let step = step.index(good.path.len());
            bad.push(with(&|p| p.path[step] = flipped(p.path[step], bit)));
            bad.push(with(&|p| {
                p.path.remove(step);
            }));
        }
        for bad in bad.iter().filter(|bad| bad.index != good.index || **bad != good) {
            prop_assert!(!bad.is_in(&tree), "{bad:?}");
        }
        let other_root = Root { root: flipped(tree.root, bit), ..tree };
        prop_assert!(!good.is_in(&other_root));
    }

    #[test]
    fn an_absent_key_is_proven_and_a_present_one_never(leaves in some_leaves(), key in any::<u32>()) {
        let tree = root_of(&hashes(&leaves));
        let key = Hash256::of(&key.to_be_bytes());
        let (before, after) = beside(&leaves, &key);
        prop_assert!(is_absent(&key, before.as_ref(), after.as_ref(), &tree));
        for (index, leaf) in leaves.iter().enumerate() {
            let at = |i: usize| leaves.get(i).map(|_| placed(&leaves, i));
            let (left, right) = (index.checked_sub(1).and_then(at), at(index + 1));
            prop_assert!(!is_absent(&leaf.key, left.as_ref(), right.as_ref(), &tree));
            prop_assert!(!is_absent(&leaf.key, left.as_ref(), at(index).as_ref(), &tree));
            prop_assert!(!is_absent(&leaf.key, at(index).as_ref(), right.as_ref(), &tree));
            prop_assert!(!is_absent(&leaf.key, left.as_ref(), None, &tree));
            prop_assert!(!is_absent(&leaf.key, None, right.as_ref(), &tree));
            prop_assert!(!is_absent(&leaf.key, None, None, &tree));
        }
    }

    #[test]
    fn an_absent_key_needs_the_leaves_right_beside_it(leaves in some_leaves(), key in any::<u32>()) {
        let tree = root_of(&hashes(&leaves));
        let key = Hash256::of(&key.to_be_bytes());
        let (before, after) = beside(&leaves, &key);
        if before.is_some() {
            prop_assert!(!is_absent(&key, None, after.as_ref(), &tree));
        }
        if after.is_some() {
            prop_assert!(!is_absent(&key, before.as_ref(), None, &tree));
        }
        if let Some(further) = before.as_ref().and_then(|b| b.index.checked_sub(1)) {
            let further = placed(&leaves, usize::try_from(further).unwrap());
            prop_assert!(!is_absent(&key, Some(&further), after.as_ref(), &tree));
        }
    }

    #[test]
    fn hashes_read_back_and_prefixes_order_as_they_do(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
        let (a, b) = (Hash256(a), Hash256(b));
        prop_assert_eq!(a.to_string().parse(), Ok(a));
        prop_assert!(a.prefix() == b.prefix() || (a.prefix() < b.prefix()) == (a < b));
    }
}

#[test]
fn the_hashes_are_those_of_the_standard() {
    let empty = Tree::default().root();
    assert_eq!(empty.root.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(empty.root.prefix(), 0x63b0_c442_98fc_1c14);
    let leaf = Leaf { key: Hash256([1; 32]), body: Hash256([2; 32]) };
    assert_eq!(leaf.hash(), Hash256::of(&[&[0][..], &[1; 32], &[2; 32]].concat()));
    for text in ["", "e3", "zz", &"0".repeat(63), &"0".repeat(65), &"G".repeat(64)] {
        assert_eq!(text.parse::<Hash256>(), Err(NotAHash), "{text}");
    }
}
