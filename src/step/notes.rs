//! What adaptors do with each tensor, for those who want to know.

use std::cell::OnceCell;
use std::sync::Arc;

use super::memo::{Memo, Note};
use super::{Context, Preview, Step, Tensor};
use crate::error::Result;
use crate::params::{Element, Layout, Params, TensorInfo, ValuesMut, for_each};

impl<'a, A: Element> Step<'a, A> {
    /// A step on these values that only has parameters and cannot be applied: what adaptors do with its tensors is [noted](Self::note).
    pub(crate) fn to_note(params: &'a (impl Params<Elem = A> + ?Sized), number: u64) -> Result<Self> {
        let (mut infos, mut tensors) = (Vec::new(), Vec::new());
        for_each(params, |path, shape, values| {
            if let Some(values) = values {
                tensors.push(Tensor::new(infos.len(), ValuesMut::preview(values)));
                infos.push(TensorInfo::new(path.to_string(), shape));
            }
        });
        let layout = Arc::new(Layout::new(infos)?);
        let context = Context { memo: OnceCell::from(Memo::noting()), ..Context::new(layout, number) };
        Ok(Self::in_context(context, tensors))
    }

    /// A [preview](Self::preview) on which what adaptors do is [noted](Self::note).
    pub(crate) fn preview_to_note(&self) -> Preview<'_, A> {
        let mut preview = self.preview();
        preview.context.memo = OnceCell::from(Memo::noting());
        preview
    }

    /// Whether somebody [wants to know](Self::to_note).
    pub(crate) fn is_noted(&self) -> bool {
        self.context.memo.get().is_some_and(Memo::is_noting)
    }

    /// Notes for the one who [wants to know](Self::to_note), if there is one, each with the position of its tensor.
    pub(crate) fn note(&self, notes: impl Iterator<Item = (usize, Note)>) {
        if let Some(memo) = self.context.memo.get() {
            memo.note(notes);
        }
    }

    /// Notes what is not about one tensor, if somebody wants to know.
    pub(crate) fn note_whole(&self, note: impl FnOnce() -> Note) {
        if self.is_noted() {
            self.note([(usize::MAX, note())].into_iter());
        }
    }

    /// What has been [noted](Self::note), in this order.
    pub(crate) fn take_notes(&self) -> Vec<(usize, Note)> {
        self.context.memo.get().map(Memo::take_notes).unwrap_or_default()
    }
}
