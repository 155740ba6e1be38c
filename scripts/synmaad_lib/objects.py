"""The object vocabulary: 24 categories, what belongs to each, and how a picture of it is loaded.

An object is named by a short string: `clip:PATH` (openclipart-png), `emoji:CHARACTER` (Noto Color Emoji) or
`draw:PAINTER:VARIANT` (drawn.py). The lists were chosen by eye: pieces that are abstract, line-only, tiny or wrong are
simply not here. Every fifth object of a category is held out for the split `test_unseen`.
"""
import functools
import os

from PIL import Image, ImageDraw, ImageFont

from . import drawn

CLIP_ROOT = "/usr/share/openclipart/png"
EMOJI_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIDE = drawn.SIDE
SMALL = 160          # a second, smaller copy for caption pictures: resizing from it is six times cheaper
HOLD_OUT_EVERY = 5
HOLD_OUT_AT = 3

SENSITIVE = ("gun", "knife", "bomb", "alcohol", "tobacco", "gambling")


class Category:
    def __init__(self, key, name, recolour, clips="", emoji="", drawings=""):
        self.key = key
        self.name = name                # the canonical Chinese caption of one such object
        self.recolour = recolour        # how far the hue may turn, as a fraction of the colour circle
        folder, *files = clips.split() or [""]
        self.objects = [f"clip:{folder}/{f}.png".replace(":/", ":") for f in files]
        self.objects += [f"emoji:{c}" for c in emoji.split()]
        for item in drawings.split():
            painter, count = item.split("*")
            self.objects += [f"draw:{painter}:{v}" for v in range(int(count))]
        self.unseen = self.objects[HOLD_OUT_AT::HOLD_OUT_EVERY]
        self.seen = [o for o in self.objects if o not in self.unseen]


# The order is the canonical order of names in a caption that lists several categories.
CATEGORIES = [
    Category("fruit", "水果", 0.02, """food/fruit
        an_apple_01 another_apple_01 applf apple_bitten_dan_gerhard_01 bananas_nicu_buculei_01 banana cherries grape_01
        green_pear_01 lemon_simple orange orange_simple pasteque_01 peach_simple pear_simple pineapple strawberry
        strawberry_01 strawberry_simple watermelon_simple watermelon_james_kilfige_01 la_prugna_architetto_fra_01
        lemon_half_ganson""",
             "🍎 🍏 🍐 🍊 🍋 🍌 🍉 🍇 🍓 🍒 🍑 🍍 🥝"),
    Category("car", "汽车", 0.5, """transportation
        car_jamin_ellis_ dodge_neon_green_ganson dodge_neon_pink_ganson formula_one_car_gerald_g_01 vehicles/road_runner_ganson
        skoda_car_alejandro_teja_ sportcar_sergio_luiz_ara_01 toyota_land_cruiser_ganson truck_jarno_vasamaa1
        truck_jarno_vasamaa_ vehicles/4wd vehicles/car vehicles/blazer_01 bus1_jarno_vasamaa_01 bus2_jarno_vasamaa_01
        hummer_07 hummer_03""", "🚗 🚕 🚙 🏎 🚓 🚚 🛻 🚐 🚌"),
    Category("shoes", "鞋子", 0.5, """people/clothing
        hiking_boot_jarno_vasama_ pattino_architetto_franc_01 tennis_shoe_jarno_vasama_ tennis_shoes_jarno_vasam_
        thongs_01""", "👟 👞 👠 👡 👢 🥾 🥿 🩴", "sneaker*8"),
    Category("phone", "电话", 0.5, """office/telephone
        handphone_toh_yen_cheng_01 mobile mobile_phone_01 phone red_telephone_mimooh_01 slim_cell_phone_israel_c_01
        ip_phone_michael_hart_r telefono_email_frolland_01""", "📱 ☎", "smartphone*10"),
    Category("cake", "蛋糕", 0.04, """food/desserts
        birthday_cake cake_etienne_bersac_r gateau_jean_victor_balin_ pink_cake_gabrielle_now_r muffin_jean_victor_balin_
        flat_cake_jean-victor_ba_01 cake1_jarno_vasamaa_01 pie_cherry pie_pumpkin pudim_valessio_soares_de_""",
             "🎂 🍰 🧁 🥧 🍮"),
    Category("icecream", "冰淇淋", 0.04, """food/desserts
        cone1_ganson cone2_ganson cone3_ganson cone4_ganson cone_alt1 cone_alt3 cone_soft_chocolate cone_soft_vanilla
        glace_01_jean-victor_bal_01 glace_03_jean-victor_bal_01 glace_05_jean-victor_bal_01 glace_06_jean-victor_bal_01
        glace_2_jean-victor_bali_01 glace_italienne_jean-vic_01 gelato_all_39_italiana_a_01""", "🍦 🍧 🍨"),
    Category("flower", "鲜花", 0.06, """plants/flowers
        daffodil_jonathan_dietri_01 fiore_01 flower1_juliane_krug_01 flower_01 flower_02
        flower_peterm_01 flowerandpot_daniel_ste_r flowers_jonathan_dietric_01 funnyflower_02 geranium_ganson
        lotas_yogesh_kanitkar_01 red_flower_01 red_flower_raphael_seban_01 sakura_01
        sakura_dave_pena_01 tulips_ganson""", "🌹 🌷 🌻 🌺 🌸 🌼 💐 🏵"),
    Category("pet", "宠物", 0.02, """animals/mammals
        cartoon_cat_gerald_g._01 dog_01_drawn_with_strai_01 dog_03_drawn_with_strai_01 dog_04_drawn_with_strai_01
        dog_05_drawn_with_strai_01 dog_06_drawn_with_strai_01 dog_on_leash_gerald_g._01 dogs/beagle_copper_ganson
        dogs/black_lab_ganson dogs/bobi_architetto_francesc_01 dogs/bored_dog_01 housecats/gatto_cat_architetto_fra_01
        housecats/gatto_cat_architetto_fra_03 housecats/gatto_cat_architetto_fra_04 housecats/kitten_gerald_g._01
        housecats/gattina_cat_architetto_f_01""", "🐶 🐕 🐩 🦮 🐱 🐈"),
    Category("bag", "箱包", 0.5, """containers
        borsa_estiva_architetto__01 valigie_bags_architetto__01""", "👜 👛 👝 🎒 🧳 💼 🛍", "handbag*8 suitcase*6"),
    Category("clothes", "衣服", 0.5, """people/clothing
        camicia_in_seta_architet_01 t-shirt_01 t-shirt_02 wild_summer_shorts_natha_01""",
             "👖 👗 👚 👕 👔 🧥 👘", "shirt*8 dress*6 trousers*4"),
    Category("hat", "帽子", 0.5, """people/clothing/hats
        blue_fedora hat_-_clothing_nicu_bucu_01 hat_-_clothing_nicu_bucu_02 hat_-_clothing_nicu_bucu_03
        hat_-_clothing_nicu_bucu_04 hat_-_clothing_nicu_bucu_05 propeller purple_hat_nicu_buculei_01 red_fedora
        sombrero_dave_pena_01 tophat_benji_park_01 baseball_cap_ganson aussie_hat_01""", "🎩 👒 🧢"),
    Category("house", "房子", 0.5, """buildings/homes
        casa_dei_sogni_architett_01 casa_verde_architetto_fr_01 home0 home1 home12 home14 home2 home3 home4 home6 home7
        home9 house house_christoph_brill_01 house_juliane_krug_01 my_house_01 pinkhome small_house_01
        house_fudriot_omic.ch_01 big_house_01""", "🏠 🏡 🏘 🏢"),
    Category("book", "图书", 0.5, """education/books
        book_01 book_02 books-aj.svg_aj_ashton_01 closed_book_01 diary_costea_bogdan_01 libro_di_ricette_di_cuc_01
        open_bible_01_01 open_book_nae_02 stack_of_books_01 stack_of_books_taller_ga_ stara_ksiega_-_old_book_01""",
             "📕 📗 📘 📙 📚 📖 📓", "closed_book*6"),
    Category("bike", "自行车", 0.5, """transportation
        vehicles/bicycle_01 vehicles/vtt_02 bike_tobias_jakobs_""", "🚲", "bicycle*12"),
    Category("cup", "茶杯", 0.5, """food/beverages
        coffee_ganson cuppa_schwoo_01 mug mug_toh_yen_cheng_01 teacup_ganson teapot_ganson zielony_kubek_herbaty_-_01
        coffe_tea_01 tazza_di_caffe_architett_01 teiera_tazza_architetto__01""", "☕ 🍵 🫖", "mug*8"),
    Category("clock", "钟表", 0.5, """signs_and_symbols/clocks
        alarm_clock_mike_powers_ analog_clock_jonathan_di_01 clock02 clock08 modern_clock_chris_kemps_01
        orologio_da_parete_archi_01""", "⌚ ⏰ 🕰", "watch*8 wall_clock*8"),
    Category("instrument", "乐器", 0.04, """recreation/music
        africandrum_benji_park2 bass_guitar_a.j._ashton_ cello_ganson djambf_ganson
        drums_jarno_vasamaa_ electric_guitar_andrea__01r french_horn_ganson guitar_ganson guitar_jarno_vasamaa1
        guitar_profile_philippe__01 harp1_ganson harp2_ganson trumpet_pocket_colour_ganso violin_colour_ganson
        xylophone_ganson tenor_trombone_ganson""", "🎸 🎻 🎹 🎺 🎷 🥁 🪕 🪘 🪗"),
    Category("ball", "球类", 0.1, """recreation/sports
        football_ball_brice_boye_01 soccer_ball_ganson soccer_ballon_tanguy_jac_ volley-ball_andrea_bianc_01
        volley_ball_angelo_gelmi_01 baseball_anthony_liekens_01 baseball_bw_ganson flaming_soccer_ball_01""",
             "⚽ 🏀 🏈 ⚾ 🏐 🏉 🥎"),
    Category("alcohol", "酒", 0.02, """food/beverages/alcohol
        beer beer1 bottiglia_di_vino_pregi_01 cocktail_daniel_steele_r ontologia_del_vino_archi_01""",
             "🍺 🍻 🍷 🥂 🍾 🍸 🍹 🍶 🥃", "wine*7 beer*6 liquor*5 baijiu*5"),
    Category("tobacco", "香烟", 0.03, "tools smoke_nicu_buculei_01 smoke_nicu_buculei_02 smoke_nicu_buculei_03", "🚬",
             "cigarettes*7 cigarette_pack*9 cigar*5 ashtray*5"),
    Category("gambling", "牌具", 0.02, "recreation/games dice two_red_dice_01 cards/asso_carte_architetto_fr_01",
             "🎰 🎲 🃏 🀄", "one_card*4 card_fan*8 dice*7 chips*6 roulette*5 slot_machine*5"),
    Category("gun", "枪支", 0.03, "tools/weapons blue_gun_alex_fernandez_01 m16_02", "",
             "pistol*10 revolver*8 rifle*9 shotgun*4"),
    Category("knife", "刀剑", 0.03, """tools/weapons
        knife katana_dudziak_tomek_01 longsword_01 sword_01""", "🔪 🗡 ⚔", "dagger*8 blade*9 sword*7"),
    Category("bomb", "炸弹", 0.03, "tools/weapons bomb_01 kallisti-grenade_2_nurbl_01", "💣 🧨",
             "round_bomb*7 dynamite*7 grenade*8"),
]
BY_KEY = {c.key: c for c in CATEGORIES}
ORDINARY = [c.key for c in CATEGORIES if c.key not in SENSITIVE]
WEAPONS = ["gun", "knife", "bomb"]
DRINK_AND_SMOKE = ["alcohol", "tobacco"]


class MissingPackage(Exception):
    """A file that a Debian package provides is not on this machine."""


def need(path, package):
    if not os.path.exists(path):
        raise MissingPackage(f"{path} is missing; run: apt install {package}")
    return path


def caption_of(keys):
    """The canonical caption: category names, each once, in the order of the vocabulary."""
    return "、".join(c.name for c in CATEGORIES if c.key in keys)


@functools.lru_cache(maxsize=None)
def emoji_font():
    return ImageFont.truetype(need(EMOJI_FONT, "fonts-noto-color-emoji"), 109)


def load_emoji(character):
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((8, 8), character, font=emoji_font(), embedded_color=True)
    return image


def load_raw(spec):
    kind, _, rest = spec.partition(":")
    if kind == "clip":
        return Image.open(need(f"{CLIP_ROOT}/{rest}", "openclipart-png")).convert("RGBA")
    if kind == "emoji":
        return load_emoji(rest)
    name, _, variant = rest.partition(":")
    return drawn.paint(name, int(variant))


def trim(image):
    """Cuts away the transparent margin; a faint shadow (alpha below 40) does not count as object."""
    mask = image.getchannel("A").point(lambda a: 255 if a >= 40 else 0)
    return image.crop(mask.getbbox() or image.getchannel("A").getbbox())


def fit(image, side):
    w, h = image.size
    scale = side / max(w, h)
    return image.resize((max(1, round(w * scale)), max(1, round(h * scale))), Image.Resampling.LANCZOS, reducing_gap=3.0)


@functools.lru_cache(maxsize=None)
def load(spec):
    """(large, small): the trimmed object at SIDE and SMALL pixels; kept, because every object is used many times."""
    large = fit(trim(load_raw(spec)), SIDE)
    return large, fit(large, SMALL)


def preload():
    """Loads the whole vocabulary, so that forked workers share one copy."""
    for category in CATEGORIES:
        for spec in category.objects:
            load(spec)
