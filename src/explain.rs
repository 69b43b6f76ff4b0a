//! The explainer: batch knows the archive and the verdicts, reconcile the settlements, the price store the prices; one
//! answer needs all three. The only place where they meet; it adds nothing of its own.

use async_trait::async_trait;
use lake::LakeRoot;
use reconcile::locate::{self, LineName};
use reconcile::settlements::Settlements;
use shared::explain::{Explainer, Occurrence, PriceRule, Unexplained, Waterfall};
use shared::id::{CampaignId, EventId};
use shared::price::PriceBook;
use shared::time::Day;

use crate::price_store::PriceStore;

/// Explains from a lake, its settlements and its price books.
pub struct Explaining {
    /// The lake.
    pub lake: LakeRoot,
    /// The root that holds `settlement/` and `reports/`.
    pub data: LakeRoot,
    /// The price books.
    pub prices: PriceStore,
}

impl Explaining {
    /// Adds the price in force and the settled line to a judgement.
    async fn complete(&self, occurrence: &mut Occurrence, book: &PriceBook) -> Result<(), Unexplained> {
        let (day, campaign_id, ad_id) = (occurrence.day, occurrence.campaign_id.clone(), occurrence.ad_id.clone());
        let Some(judged) = occurrence.judged.as_mut() else { return Ok(()) };
        let price = book.in_force(&campaign_id, judged.billing_time);
        judged.price = (price.version > 0 && i64::from(price.version) == judged.price_version)
            .then_some(PriceRule { price_micros: price.price_micros, valid_from: price.valid_from });
        let name = LineName {
            campaign_id,
            ad_id,
            currency: judged.currency.clone(),
            price_model: judged.price_model.clone(),
            price_version: judged.price_version,
        };
        let found = locate::line(&Settlements::new(self.data.clone()), day, &name).await.map_err(reconciled)?;
        judged.settled = found.filter(|(run, _)| *run == judged.run).map(|(_, line)| line);
        if let Some(line) = judged.settled.as_mut() {
            line.adjustments = locate::adjustments(&self.lake, day, &name.campaign_id).await.map_err(reconciled)?;
            let is_of_line = |ad: &Option<String>| ad.as_ref().is_none_or(|ad| *ad == name.ad_id);
            line.adjustments.retain(|a| a.currency == name.currency && is_of_line(&a.ad_id));
        }
        Ok(())
    }
}

fn reconciled(e: reconcile::Error) -> Unexplained {
    Unexplained { kind: e.kind(), why: e.to_string() }
}

#[async_trait]
impl Explainer for Explaining {
    async fn event(&self, id: &EventId) -> Result<Vec<Occurrence>, Unexplained> {
        let found = batch::explain(&self.lake, id).await;
        let mut found = found.map_err(|e| Unexplained { kind: e.kind(), why: e.to_string() })?;
        let book = self.prices.newest().map_err(|e| Unexplained { kind: e.kind(), why: e.to_string() })?;
        for occurrence in &mut found {
            self.complete(occurrence, &book).await?;
        }
        Ok(found)
    }

    async fn campaign(&self, id: &CampaignId, day: Day) -> Result<Option<Waterfall>, Unexplained> {
        let book = |version| self.prices.load(version).ok();
        let found = reconcile::waterfall::of(&self.lake, &self.data, &book, id, day).await;
        found.map_err(reconciled)
    }
}
