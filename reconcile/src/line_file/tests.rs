//! Written and read back, in both forms.

use flate2::read::GzDecoder;
use proptest::prelude::*;
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::Counts;

use super::*;
use crate::lines::{LineKey, Printed};

fn line() -> impl Strategy<Value = Line> {
    let id = "[A-Za-z0-9_-]{1,8}";
    let counts = (0..1_u64 << 40, 0..1_u64 << 40, 0..1_u64 << 40, -(1_i128 << 70)..(1_i128 << 70));
    let excluded = proptest::array::uniform9(0..1_u64 << 40);
    let model = prop_oneof![Just("cpc"), Just("cpm"), Just("cpa"), Just("reported"), Just("free")];
    (id, id, model, 0..u32::MAX, counts, excluded).prop_map(
        |(campaign, ad, price_model, price_version, (impressions, clicks, conversions, cost_nanos), excluded)| Line {
            key: LineKey {
                campaign_id: CampaignId::new(campaign).unwrap(),
                ad_id: AdId::new(ad).unwrap(),
                currency: Currency::parse("EUR").unwrap(),
                price_model,
                price_version,
            },
            counts: Counts { impressions, clicks, conversions, cost_nanos },
            excluded,
        },
    )
}

proptest! {
    #[test]
    fn both_forms_read_back_as_the_same_cells(lines in proptest::collection::vec(line(), 0..20), version in 1..1_000_u32) {
        let day = Day(20_000);
        let wanted: Vec<Cells> = lines.iter().map(|l| l.cells(day, version).unwrap()).collect();
        for form in Form::ALL {
            let bytes = form.write(day, version, &lines).unwrap();
            prop_assert_eq!(form.write(day, version, &lines).unwrap(), bytes.clone(), "the same lines give other bytes");
            let mut cells = Vec::new();
            form.read(bytes.into(), &mut |row| cells.push(row)).unwrap();
            prop_assert_eq!(&cells, &wanted);
            for (cells, line) in cells.iter().zip(&lines) {
                let printed = Printed::from_cells(cells).unwrap();
                prop_assert_eq!(&printed.line, line);
                prop_assert_eq!((printed.day, printed.version), (day, version));
            }
        }
    }
}

fn text_of(lines: &[Line]) -> String {
    let bytes = Form::Csv.write(Day(20_000), 1, lines).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut GzDecoder::new(bytes.as_slice()), &mut text).unwrap();
    text
}

#[test]
fn a_cell_that_a_spreadsheet_takes_for_a_formula_is_quoted_and_a_number_is_not() {
    let line = Line {
        key: LineKey {
            campaign_id: CampaignId::new("-1-1").unwrap(),
            ad_id: AdId::new("a").unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            price_model: "cpc",
            price_version: 1,
        },
        counts: Counts { cost_nanos: -1_500, ..Counts::default() },
        excluded: [0; 9],
    };
    let text = text_of(&[line]);
    let row = text.lines().nth(1).unwrap();
    assert_eq!(row, "2024-10-04,1,'-1-1,a,EUR,cpc,1,0,0,0,-1500,-2,-0.000002,0,0,0,0,0,0,0,0,0");
    assert!(text.ends_with("\r\n"), "RFC 4180 ends lines in CRLF");
}

#[test]
fn a_gzip_header_tells_neither_time_nor_system() {
    let bytes = Form::Csv.write(Day(20_000), 1, &[]).unwrap();
    assert_eq!(bytes[4..8], [0; 4], "modification time");
    assert_eq!(bytes[9], 255, "system");
}

#[test]
fn a_row_that_is_not_what_its_line_prints_is_named_by_its_column() {
    let good = Line {
        key: LineKey {
            campaign_id: CampaignId::new("c").unwrap(),
            ad_id: AdId::new("a").unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            price_model: "cpc",
            price_version: 1,
        },
        counts: Counts { clicks: 1, cost_nanos: 2_500, ..Counts::default() },
        excluded: [0; 9],
    }
    .cells(Day(20_000), 1)
    .unwrap();
    for (column, value, named) in [
        (11, "3", "cost_micros"),
        (12, "0.000003", "cost"),
        (8, "01", "clicks"),
        (0, "2024-10-4", "day"),
        (4, "eur", "currency"),
    ] {
        let mut bad = good.clone();
        value.clone_into(&mut bad[column]);
        assert!(Printed::from_cells(&bad).unwrap_err().starts_with(named), "{named}");
    }
    assert!(Printed::from_cells(&good[1..]).unwrap_err().contains("21 cells"));
}
