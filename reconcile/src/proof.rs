//! A proof about one event, as it travels: the event is billed, or it is not. Checked with the manifest alone; pure.
//! Guarantee: a proof that checks out says what the settlement's Merkle root says; it shows no other event but, where
//! the event is not billed, the hashes of its two neighbours.
//! Never: takes the tree's root from the proof; the manifest's stands.

use serde::{Deserialize, Serialize};
use shared::billed::{event_id_of, key};
use shared::id::EventId;
use shared::merkle::{Hash256, Leaf, Placed, is_absent};
use shared::time::Day;

use crate::manifest::Manifest;

/// The version of the proof's form.
pub const PROOF_VERSION: u32 = 1;

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// [`PROOF_VERSION`].
    pub proof_version: u32,
    /// The event.
    pub event_id: EventId,
    /// The billing day of the settlement.
    pub day: Day,
    /// Its version.
    pub version: u32,
    /// What is proven.
    pub proves: Statement,
}

/// What a proof says of its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Statement {
    /// It is billed, like this.
    Billed(Billed),
    /// It is not billed: its key would stand between these two.
    NotBilled(NotBilled),
}

/// The leaf of a billed event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Billed {
    /// Its number among the leaves.
    pub index: u64,
    /// What it says ([`shared::billed`]).
    pub body: String,
    /// The hashes beside the way to the root.
    pub path: Vec<Hash256>,
}

/// The leaves beside the place where an event's leaf would be; absent at an end of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotBilled {
    /// The last leaf with a smaller key.
    pub before: Option<Neighbour>,
    /// The first leaf with a larger key.
    pub after: Option<Neighbour>,
}

/// A leaf of another event: hashes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbour {
    /// Its number among the leaves.
    pub index: u64,
    /// The SHA-256 of its event id.
    pub key: Hash256,
    /// The SHA-256 of what it says.
    pub body_hash: Hash256,
    /// The hashes beside the way to the root.
    pub path: Vec<Hash256>,
}

impl Neighbour {
    fn placed(&self) -> Placed {
        let leaf = Leaf { key: self.key, body: self.body_hash };
        Placed { leaf, index: self.index, path: self.path.clone() }
    }
}

impl From<Placed> for Neighbour {
    fn from(Placed { leaf, index, path }: Placed) -> Self {
        Self { index, key: leaf.key, body_hash: leaf.body, path }
    }
}

impl Proof {
    /// From the file's bytes.
    ///
    /// # Errors
    /// When they are no proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Whether it says that its event is billed.
    #[must_use]
    pub fn is_billed(&self) -> bool {
        matches!(self.proves, Statement::Billed(_))
    }

    /// Why it does not prove what it says of the settlement with this manifest; nothing where it does.
    #[must_use]
    pub fn problem(&self, manifest: &Manifest) -> Option<String> {
        if self.proof_version != PROOF_VERSION {
            return Some(format!("proofVersion {} is not {PROOF_VERSION}: use a newer program", self.proof_version));
        }
        if (self.day, self.version) != (manifest.day, manifest.version) {
            let (day, version) = (manifest.day, manifest.version);
            return Some(format!("it is about {} version {}, not {day} version {version}", self.day, self.version));
        }
        let (key, tree) = (key(self.event_id.as_str()), &manifest.merkle);
        match &self.proves {
            Statement::Billed(Billed { index, body, path }) => {
                let leaf = Leaf { key, body: Hash256::of(body.as_bytes()) };
                let placed = Placed { leaf, index: *index, path: path.clone() };
                if event_id_of(body) != Some(self.event_id.as_str()) {
                    Some(format!("its leaf is not about event {}", self.event_id))
                } else if !placed.is_in(tree) {
                    Some(format!("its leaf and path do not lead to the settlement's root {}", tree.root))
                } else {
                    None
                }
            }
            Statement::NotBilled(NotBilled { before, after }) => {
                let placed = |n: &Option<Neighbour>| n.as_ref().map(Neighbour::placed);
                let absent = is_absent(&key, placed(before).as_ref(), placed(after).as_ref(), tree);
                (!absent).then(|| {
                    format!(
                        "its neighbours are not two leaves side by side under the root {} around the event",
                        tree.root
                    )
                })
            }
        }
    }
}
