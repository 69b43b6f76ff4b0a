//! Who owns what: the one question reports ask about campaigns and ads.

use shared::directory::DirectoryHandle;
use shared::id::{AdId, AdvertiserId, CampaignId};

/// The owners of campaigns and ads. The ad directory is one; tests bring their own.
pub trait Tenants: Send + Sync {
    /// The advertiser a campaign belongs to, if it is known.
    fn of_campaign(&self, campaign: &CampaignId) -> Option<AdvertiserId>;
    /// The advertiser an ad belongs to, if it is known.
    fn of_ad(&self, ad: &AdId) -> Option<AdvertiserId>;
    /// The campaigns of an advertiser, by id.
    fn campaigns(&self, advertiser: &AdvertiserId) -> Vec<CampaignId>;
}

impl Tenants for DirectoryHandle {
    fn of_campaign(&self, campaign: &CampaignId) -> Option<AdvertiserId> {
        self.current().advertiser_of(campaign).cloned()
    }

    fn of_ad(&self, ad: &AdId) -> Option<AdvertiserId> {
        self.current().lookup(ad).map(|ad| ad.advertiser_id.clone())
    }

    fn campaigns(&self, advertiser: &AdvertiserId) -> Vec<CampaignId> {
        self.current().campaigns_of(advertiser).to_vec()
    }
}
