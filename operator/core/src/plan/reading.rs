//! Reading a stored plan once, line by line: it is verified, and a mark is kept for each few hundred entries.

use super::{Cutter, Entry, FORMAT, Foot, Head, Mark, Plan, PlanError, STRIDE, named};

/// A stored plan while it is read.
#[derive(Default)]
pub struct Reading {
    head: Option<Head>,
    foot: Option<Foot>,
    marks: Vec<Mark>,
    cutter: Cutter,
    entries: u64,
    bytes: u64,
    offset: u64,
    whole: blake3::Hasher,
    content: blake3::Hasher,
}

impl Reading {
    /// Takes the next line, with its newline.
    ///
    /// # Errors
    /// When it is none of a plan.
    pub fn line(&mut self, line: &[u8]) -> Result<(), PlanError> {
        self.whole.update(line);
        let at = self.offset;
        self.offset += line.len() as u64;
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(PlanError::Form("its last line is not whole"));
        };
        if self.foot.is_some() {
            return Err(PlanError::Form("it does not end after its foot"));
        }
        let Some(head) = &self.head else {
            let head: Head = serde_json::from_slice(text)?;
            if head.format != FORMAT {
                return Err(PlanError::Form("it is of another version"));
            }
            self.content.update(&serde_json::to_vec(&head.cut)?);
            self.head = Some(head);
            return Ok(());
        };
        if let Ok(foot) = serde_json::from_slice(text) {
            self.foot = Some(foot);
            return Ok(());
        }
        let entry: Entry = serde_json::from_slice(text)?;
        if !entry.is_for(&head.cut) {
            return Err(PlanError::Form("an entry is none of its source"));
        }
        if self.entries.is_multiple_of(STRIDE) {
            self.marks.push(Mark { offset: at, cutter: self.cutter });
        }
        let more = PlanError::Form("it has more shards than a job may have");
        self.cutter.add(&head.cut, entry.size()).ok_or(more)?;
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.content.update(line);
        Ok(())
    }

    /// Everything is read; with `wanted`, only the plan with that digest is taken.
    ///
    /// # Errors
    /// When it is damaged or another one.
    pub fn end(self, wanted: Option<&str>) -> Result<Plan, PlanError> {
        let found = named(&self.whole);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return Err(PlanError::Digest { found, wanted: wanted.into() });
        }
        let (Some(head), Some(foot)) = (self.head, self.foot) else {
            return Err(PlanError::Form("it has no end"));
        };
        let counted = Foot {
            entries: self.entries,
            bytes: self.bytes,
            shards: self.cutter.shards(),
            content: named(&self.content),
        };
        if foot != counted {
            return Err(PlanError::Form("its foot does not say what its entries make"));
        }
        Ok(Plan { head, foot, digest: found, marks: self.marks })
    }
}
