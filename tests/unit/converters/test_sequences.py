"""What series are taken for and which are chosen, with names and physics of real protocols."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.sequences import ACCEPTANCE_SCORE, Physics, SequenceEvidence, classify


def _spin_echo(
    tr_ms: float, te_ms: float, ti_ms: float | None = None, *, flip_deg: float = 90.0
) -> Physics:
    return Physics(
        repetition_time_ms=tr_ms,
        echo_time_ms=te_ms,
        inversion_time_ms=ti_ms,
        flip_angle_deg=flip_deg,
        scanning=("SE",) if ti_ms is None else ("SE", "IR"),
    )


def _gradient_echo(tr_ms: float, te_ms: float, ti_ms: float | None, flip_deg: float) -> Physics:
    plain = _spin_echo(tr_ms, te_ms, ti_ms, flip_deg=flip_deg)
    return replace(plain, scanning=("GR",))


T1 = _spin_echo(550.0, 9.0)
T2 = _spin_echo(5200.0, 98.0)
FLAIR = _spin_echo(9000.0, 88.0, 2500.0)
MPRAGE = _gradient_echo(1900.0, 2.9, 900.0, 9.0)
NOTHING = Physics()


def _evidence(name: str, physics: Physics = NOTHING, *, agent: bool = False) -> SequenceEvidence:
    return SequenceEvidence(description=name, physics=physics, has_agent=agent)


@pytest.mark.parametrize(
    ("name", "physics", "sequence"),
    [
        ("t2_tirm_tra_dark-fluid", FLAIR, "FLAIR"),
        ("AX FLAIR", NOTHING, "FLAIR"),
        ("Sag CUBE T2 FLAIR", _spin_echo(4800.0, 387.0, 1650.0), "FLAIR"),
        ("", FLAIR, "FLAIR"),
        ("AX FLAIR", _spin_echo(9000.0, 120.0), "FLAIR"),
        ("t2_space_sag", _spin_echo(5000.0, 388.0, 1800.0), "FLAIR"),
        ("3D", replace(FLAIR, inversion_time_ms=None, scanning=("SE", "IR")), "FLAIR"),
        ("t1_se_tra", T1, "T1w"),
        ("t1_tirm_tra_dark-fluid", _spin_echo(2000.0, 9.0, 860.0), "T1w"),
        ("AX T1 FLAIR", _spin_echo(2200.0, 10.0, 780.0), "T1w"),
        ("FLAIR", _spin_echo(2200.0, 10.0, 780.0), "T1w"),
        ("MPRAGE", MPRAGE, "T1w"),
        ("Ax FSPGR BRAVO", _gradient_echo(8.0, 3.2, 450.0, 12.0), "T1w"),
        ("T1W_FFE", _gradient_echo(256.0, 3.6, None, 80.0), "T1w"),
        ("T1W 3D TFE", _gradient_echo(8.1, 3.7, None, 8.0), "T1w"),
        ("t1_tse", _spin_echo(2000.0, 12.0), "T1w"),
        ("", T1, "T1w"),
        ("t2_tse_tra", T2, "T2w"),
        ("", T2, "T2w"),
        ("Ax FRFSE T2 512 x 512", NOTHING, "T2w"),
        ("T2W_GRASE", NOTHING, "T2w"),
        ("t1_mprage +KM", MPRAGE, "T1gd"),
        ("AX T1 POST GD", T1, "T1gd"),
        ("T1 3D apr\u00e8s inj.", MPRAGE, "T1gd"),
        ("t1 nach KM", T1, "T1gd"),
        ("T1 SE con mdc", T1, "T1gd"),
        ("T1 +C", T1, "T1gd"),
        ("AX T1 C", T1, "T1gd"),
        ("T1ce", NOTHING, "T1gd"),
        ("t1 nativ", T1, "T1w"),
        ("T1 sans gado", T1, "T1w"),
        ("T1 W/O", T1, "T1w"),
        ("Brain w wo contrast T1 PRE", T1, "T1w"),
        ("POSTOPBRAINT2AX", NOTHING, "T2w"),
        ("post-op AX T1", T1, "T1w"),
        ("ep2d_diff_3scan_trace_p2_ADC", NOTHING, "other: DWI"),
        ("resolve", replace(T2, b_value=1000.0), "other: DWI"),
        ("", replace(T2, b_value=1000.0), "other: DWI"),
        ("dynamic", NOTHING, "other: perfusion"),
        ("cbf map", NOTHING, "other: perfusion"),
        ("t2_swi3d_tra", _gradient_echo(28.0, 20.0, None, 15.0), "other: SWI"),
        ("AX T2*", _gradient_echo(600.0, 20.0, None, 20.0), "other: T2*"),
        ("AX T1", _gradient_echo(600.0, 20.0, None, 20.0), "other: T2*"),
        ("ax gre", NOTHING, "other: T2*"),
        ("t1 t2", NOTHING, "other: unknown"),
        ("AX PD", _spin_echo(3000.0, 12.0), "other: PD"),
        ("", _spin_echo(3000.0, 12.0), "other: PD"),
        ("t2", _spin_echo(4000.0, 45.0, 150.0), "other: STIR"),
        ("stir cor", NOTHING, "other: STIR"),
        ("3-plane loc", NOTHING, "other: localizer"),
        ("\u00dcbersicht", NOTHING, "other: localizer"),
        ("t1_mprage_MPR_tra", MPRAGE, "other: reformat"),
        ("T1 SUB", T1, "other: subtraction"),
        ("tof_fl3d_tra MIP", NOTHING, "other: angiography"),
        ("vessels", replace(MPRAGE, has_angio_flag=True), "other: angiography"),
        ("T1 vein MIP", NOTHING, "other: projection"),
        ("ep2d", replace(T2, scanning=("EP", "SE")), "other: functional"),
        ("t2", replace(T2, scanning=("EP", "SE")), "other: EPI"),
        ("t1 map", NOTHING, "other: parameter map"),
        ("Dose report", NOTHING, "other: screenshot"),
        ("", NOTHING, "other: unknown"),
        ("", _gradient_echo(1500.0, 10.0, None, 20.0), "other: T2*"),
        ("", _spin_echo(3000.0, 50.0), "other: PD"),
        ("", _spin_echo(3000.0, 50.0, 900.0), "other: unknown"),
        ("low", _spin_echo(4000.0, 200.0, 1000.0), "other: unknown"),
        ("flair", _spin_echo(4000.0, 200.0, 1000.0), "FLAIR"),
        ("low", _spin_echo(4000.0, 200.0, 600.0), "other: unknown"),
        ("", _spin_echo(900.0, 90.0), "other: unknown"),
        ("", _spin_echo(1500.0, 12.0), "T1w"),
        ("", _spin_echo(2200.0, 12.0), "other: PD"),
        ("T1", _spin_echo(1500.0, 12.0, 150.0), "other: STIR"),
        ("", _spin_echo(3000.0, 80.0, None, flip_deg=150.0), "T2w"),
        ("", _gradient_echo(2000.0, 4.0, 2500.0, 5.0), "other: PD"),
        ("", _gradient_echo(5000.0, 3.0, 700.0, 5.0), "other: MP2RAGE"),
        ("", replace(_gradient_echo(8.0, 3.5, None, 8.0), variant=("MP",)), "T1w"),
        (
            "",
            replace(_gradient_echo(5.0, 2.5, None, 50.0), variant=("SS",)),
            "other: balanced SSFP",
        ),
        ("", _gradient_echo(8.0, 3.0, None, 20.0), "T1w"),
        ("", replace(_gradient_echo(22.0, 4.0, None, 20.0), acquisition_type="3D"), "T1w"),
        ("", _gradient_echo(8.0, 3.0, None, 5.0), "other: PD"),
        ("", _gradient_echo(400.0, 3.0, None, 20.0), "other: T2*"),
        ("", _gradient_echo(500.0, 5.0, None, 60.0), "other: field map"),
        ("", replace(T2, scanning=(), flip_angle_deg=None), "T2w"),
        ("", replace(MPRAGE, scanning=()), "T1w"),
        ("", replace(T2, bandwidth_hz=2000.0), "other: EPI"),
        ("FLAIR", replace(FLAIR, bandwidth_hz=1200.0, acquisition_type="3D"), "FLAIR"),
        ("t1", replace(T1, temporal_count=40), "T1w"),
        ("", replace(MPRAGE, temporal_count=40), "other: dynamic"),
        ("haste", NOTHING, "T2w"),
        ("flash", NOTHING, "other: unknown"),
        ("tirm", NOTHING, "FLAIR"),
        ("pd t2 tse", _spin_echo(3000.0, 12.0), "other: PD"),
        ("pd t2 tse", T2, "T2w"),
        ("mp2rage INV1", MPRAGE, "other: MP2RAGE inversion"),
        ("mp2rage UNI", MPRAGE, "other: MP2RAGE"),
        ("T1W_3D MPRAGE moco", MPRAGE, "T1w"),
        ("t1_vibe_dixon_F", T1, "other: Dixon"),
        ("t1_vibe_dixon_W", T1, "T1w"),
        ("T1 senza mdc", T1, "T1w"),
        ("T1 apr\u00e8s injection", T1, "T1gd"),
        ("T1 sem contraste", T1, "T1w"),
        ("T1 com contraste", T1, "T1gd"),
        ("T1 zonder contrast", T1, "T1w"),
        ("+C localizer", T1, "other: localizer"),
        ("T2 post gd", T2, "T2w"),
        ("FLAIR +C", FLAIR, "FLAIR"),
    ],
)
def test_a_series_is_taken_for_what_it_is(name: str, physics: Physics, sequence: str) -> None:
    found = classify(_evidence(name, physics))
    assert found.sequence == sequence
    assert 0.0 <= found.score <= 1.0
    assert (found.role is None) == sequence.startswith("other: ")


@pytest.mark.parametrize(
    ("description", "protocol", "sequence"),
    [
        ("AX T1", "BRAIN DIFFUSION PERFUSION WITH CONTRAST", "T1w"),
        ("AX T2", "Brain T1 with GAD", "T2w"),
        ("series 4", "t1_mprage_tra_KM", "T1gd"),
        ("t1_mprage_tra", "t1_mprage_tra_KM", "T1gd"),
        ("after gad", "t1_mprage_tra", "T1gd"),
        ("dwi", "t1_mprage_tra", "other: DWI"),
        ("series 4", "ep2d_diff", "other: DWI"),
    ],
)
def test_the_protocol_name_counts_where_the_description_is_silent(
    description: str, protocol: str, sequence: str
) -> None:
    evidence = SequenceEvidence(description=description, protocol_name=protocol)
    assert classify(evidence).sequence == sequence


@pytest.mark.parametrize(
    ("image_type", "sequence"),
    [
        (("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), "other: DWI"),
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), "other: localizer"),
        (("DERIVED", "SECONDARY", "MPR"), "other: reformat"),
        (("ORIGINAL", "PRIMARY", "P", "ND"), "other: phase image"),
        (("ORIGINAL", "PRIMARY", "M", "ND"), "T1w"),
    ],
)
def test_the_image_type_comes_before_the_name(image_type: tuple[str, ...], sequence: str) -> None:
    evidence = replace(_evidence("t1_se_tra", T1), image_type=image_type)
    assert classify(evidence).sequence == sequence


@pytest.mark.parametrize(("modality", "kind"), [("CT", "CT"), ("SEG", "SEG"), ("ZZ", "not MR")])
def test_another_modality_serves_no_role(modality: str, kind: str) -> None:
    found = classify(replace(_evidence("t1_se_tra", T1), modality=modality))
    assert found.sequence == f"other: {kind}"
    assert found.role is None


def test_agreement_scores_highest_and_a_contradiction_lowest() -> None:
    agreed = classify(_evidence("t2_tse", T2)).score
    named = classify(_evidence("t2_tse")).score
    measured = classify(_evidence("", T2)).score
    disputed = classify(_evidence("t1_se", T2)).score
    assert agreed > max(named, measured)
    assert min(named, measured) > ACCEPTANCE_SCORE > disputed


def test_the_runner_up_is_what_else_it_could_be() -> None:
    disputed = classify(_evidence("t1_se", T2))
    assert disputed.sequence == "T2w"
    assert disputed.rival == "T1w"
    assert disputed.runner_up == f"T1w {disputed.rival_score:.2f}"
    assert classify(_evidence("AX DWI", NOTHING)).runner_up == ""


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("*tfl3d1_16ns", "T1w"),
        ("*spcir_278ns", "FLAIR"),
        ("ep_b1000#1", "other: DWI"),
        ("*epfid2d1_64", "other: EPI"),
        ("3dtof", "other: angiography"),
        ("DwiSE", "other: DWI"),
        ("B-FFE", "other: balanced SSFP"),
        ("*swi3d1r", "other: SWI"),
        ("nonsense", "other: unknown"),
    ],
)
def test_the_pulse_sequence_has_a_say(name: str, sequence: str) -> None:
    assert classify(SequenceEvidence(sequence_name=name)).sequence == sequence


@pytest.mark.parametrize(
    ("weighting", "sequence"),
    [("FLUID_ATTENUATED", "FLAIR"), ("T1", "T1w"), ("DIFFUSION", "other: DWI"), ("", "T2w")],
)
def test_the_acquisition_contrast_of_enhanced_images_counts(weighting: str, sequence: str) -> None:
    physics = NOTHING if weighting else T2
    assert classify(SequenceEvidence(weighting=weighting, physics=physics)).sequence == sequence


@pytest.mark.parametrize(
    ("part", "sequence"),
    [("HEAD", "T2w"), ("LSPINE", "other: another part of the body"), ("SHOULDER", "T2w")],
)
def test_images_of_a_spine_serve_no_role_whatever_their_weighting(part: str, sequence: str) -> None:
    assert classify(replace(_evidence("t2_tse", T2), body_part=part)).sequence == sequence


@pytest.mark.parametrize(
    ("name", "image_type", "sequence"),
    [
        ("t1_mpr_sag_iso", ("ORIGINAL", "PRIMARY"), "T1w"),
        ("t1_mpr_sag_iso", ("DERIVED", "SECONDARY"), "other: reformat"),
        ("T1w_MPR", (), "T1w"),
        ("t1 recon", (), "T1w"),
        ("t1 recon", ("DERIVED", "SECONDARY"), "other: reformat"),
    ],
)
def test_mpr_also_stands_for_mprage(name: str, image_type: tuple[str, ...], sequence: str) -> None:
    evidence = replace(_evidence(name, MPRAGE), image_type=image_type)
    assert classify(evidence).sequence == sequence


def test_an_agent_that_was_given_later_makes_no_t1_enhanced() -> None:
    early = replace(_evidence("t1_se", T1, agent=True), acquired_at_s=10.0, agent_at_s=99.0)
    assert classify(early).sequence == "T1w"
    assert classify(replace(early, agent_at_s=5.0)).sequence == "T1gd"


def test_derived_images_score_lower() -> None:
    original = _evidence("t2_tse", T2)
    derived = replace(original, image_type=("DERIVED", "SECONDARY"))
    assert classify(derived).score < classify(original).score


def test_an_agent_makes_a_t1_enhanced_unless_the_name_denies_it() -> None:
    assert classify(_evidence("t1_se_tra", T1, agent=True)).sequence == "T1gd"
    denied = classify(_evidence("t1_se_tra pre", T1, agent=True))
    assert denied.sequence == "T1w"
    assert denied.score < classify(_evidence("t1_se_tra pre", T1)).score


def test_a_reason_is_one_that_a_radiologist_understands() -> None:
    evidence = _evidence("Mustermann Kopf t1 nach KM", MPRAGE, agent=True)
    assert classify(evidence).reason == (
        "T1gd: name says after contrast agent, contrast agent given, name says T1, "
        "TR 1900 ms, TE 2.9 ms, TI 900 ms"
    )


@given(st.text(max_size=60))
def test_a_reason_never_repeats_the_header(name: str) -> None:
    reason = classify(_evidence(f"Mustermann {name} t1 Geheim")).reason
    assert "Mustermann" not in reason
    assert "Geheim" not in reason


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("T1 C-", "T1w"),
        ("T1 -C", "T1w"),
        ("T1 +/- C", "T1w"),
        ("T1 premdc", "T1w"),
        ("T1 oKM", "T1w"),
        ("T1 blanco", "T1w"),
        ("T1 ss inj", "T1w"),
        ("t1_se_tra +CTE", "T1gd"),
        ("TSE_3DT1mdc", "T1gd"),
        ("AX T1 POS", "T1gd"),
        ("sT1W_3D_TFE_GD SENSE", "T1gd"),
        ("WIPT2W_TSESENSE", "T2w"),
        ("WIPB0SENSE", "other: DWI"),
        ("3DB0Map", "other: field map"),
        ("Scan-o-gram", "other: localizer"),
        ("sB1000", "other: DWI"),
        ("t2ax hemoFIL", "other: T2*"),
        ("pd_mprage", "other: PD"),
        ("SAG T1 MPRAGE", "T1w"),
        ("T2_3D_composing", "other: composed images"),
    ],
)
def test_words_are_found_where_scanners_glue_them(name: str, sequence: str) -> None:
    assert classify(_evidence(name)).sequence == sequence


def test_what_a_series_is_for_is_not_what_it_is() -> None:
    assert classify(_evidence("T1 vol DTI", MPRAGE)).sequence == "T1w"
    assert classify(_evidence("T1 vol DTI")).sequence == "other: DWI"


def test_images_of_several_stations_are_of_no_brain() -> None:
    composed = replace(_evidence("t1_mprage", MPRAGE), image_type=("ORIGINAL", "COMPOSED"))
    assert classify(composed).role is None


def test_a_long_repetition_without_inversion_leaves_a_doubt() -> None:
    nameless = _evidence("", replace(T2, repetition_time_ms=9000.0))
    assert classify(nameless).score < ACCEPTANCE_SCORE
    assert classify(replace(nameless, description="t2_tse")).score >= ACCEPTANCE_SCORE
