//! Families of ids that differ by very little: each member is another event, none may swallow another.

use super::dice::Dice;

/// Several ids of one family, all different.
pub(super) fn family(dice: &mut Dice) -> Vec<String> {
    let hex = dice.hex("", 32);
    match dice.below(4) {
        // One UUID in four spellings: a 16-byte form would make them one.
        0 => {
            let hyphenated = hyphenate(&hex);
            vec![hyphenated.to_ascii_uppercase(), hyphenated, hex.to_ascii_uppercase(), hex]
                .into_iter()
                .fold(Vec::new(), push_new)
        }
        // Ids that begin with one another.
        1 => vec![format!("{hex}0"), format!("{hex}_"), format!("{hex}-"), hex],
        // The longest ids there are, different in the last byte only.
        2 => {
            let long = format!("{hex}{hex}");
            let stem = long.get(..63).unwrap_or(&long).to_owned();
            ["a", "b", "A"].iter().map(|end| format!("{stem}{end}")).collect()
        }
        // The same sixteen bytes first.
        _ => (0..3).map(|i| format!("same-prefix-1234{}-{i}", hex.get(..8).unwrap_or(&hex))).collect(),
    }
}

fn hyphenate(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Upper and lower case are one where an id happens to have no letter.
fn push_new(mut ids: Vec<String>, id: String) -> Vec<String> {
    if !ids.contains(&id) {
        ids.push(id);
    }
    ids
}
