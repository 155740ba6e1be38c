"""Ad copy: templates and phrases, Chinese with about a tenth of English.

A template is a string with {slots}; a slot is a list of phrases (LISTS) or the product's name ({p}, chosen by the
caller). Copy that must not tell which label it belongs to comes from one shared source (`neutral`). Every list keeps
its last quarter (at least one item, when it has four or more) for the split `test_unseen`, templates included; there the
template is always a held-out one, and each phrase is a held-out one in half of the cases: an ad of nothing but words
never seen could not be judged by any model that learns its words from these ads.
"""

PRODUCTS = {
    "fruit": ("水果 鲜果 苹果 香蕉 草莓 西瓜 葡萄 果篮 果品", "fresh fruit"),
    "car": ("汽车 轿车 新能源车 家用车 越野车 二手车 车型 跑车", "car"),
    "shoes": ("鞋子 运动鞋 跑鞋 女鞋 童鞋 靴子 休闲鞋 皮鞋", "shoes"),
    "phone": ("电话 手机 智能手机 新手机 电话机 老人手机 手机套餐 拍照手机", "phone"),
    "cake": ("蛋糕 生日蛋糕 甜点 奶油蛋糕 糕点 水果蛋糕 小蛋糕", "cake"),
    "icecream": ("冰淇淋 雪糕 甜筒 冰棍 冰品 香草冰淇淋 巧克力雪糕", "ice cream"),
    "flower": ("鲜花 花束 玫瑰 盆花 花卉 花篮 鲜花花束", "flowers"),
    "pet": ("宠物 小狗 猫咪 狗狗 宠物狗 宠物用品 小猫 宠物猫", "pet"),
    "bag": ("箱包 手提包 女包 旅行箱 背包 行李箱 双肩包 挎包", "bag"),
    "clothes": ("衣服 服装 衬衫 连衣裙 T恤 裤子 女装 男装 裙子", "clothes"),
    "hat": ("帽子 礼帽 棒球帽 遮阳帽 草帽 鸭舌帽 儿童帽子", "hat"),
    "house": ("房子 住宅 新房 公寓 楼盘 别墅 房源 二手房", "house"),
    "book": ("图书 书籍 新书 童书 小说 绘本 工具书 图书套装", "book"),
    "bike": ("自行车 单车 山地车 公路车 童车 折叠自行车 城市单车", "bike"),
    "cup": ("茶杯 杯子 咖啡杯 茶具 马克杯 水杯 陶瓷杯", "cup"),
    "clock": ("钟表 手表 闹钟 腕表 挂钟 时钟 石英表", "watch"),
    "instrument": ("乐器 吉他 钢琴 小提琴 架子鼓 民族乐器 电吉他", "instrument"),
    "ball": ("球类 足球 篮球 排球 橄榄球 皮球 训练足球", "ball"),
    "alcohol": ("好酒 酒水 美酒 佳酿 陈酿 葡萄酒 啤酒 白酒", "wine"),
    "tobacco": ("香烟 烟草 卷烟 雪茄 烟具 细支香烟", "cigarettes"),
    "gambling": ("扑克牌 桌游 棋牌 骰子 纸牌 桌游扑克", "board game"),
}

LISTS = {
    "good": "品质优良 做工细致 用料实在 款式多样 简约大方 口碑不错 经典设计 质感舒适 轻巧便携 色彩丰富 精心挑选 规格齐全 "
            "耐看耐用 老少皆宜 送礼自用皆可 细节讲究",
    "act": "欢迎选购 到店看看 欢迎咨询 门店有售 现货供应 支持配送 欢迎预订 本周到货 线上线下同价 全城配送 可开发票 售后无忧 "
           "七天可退 支持自提 恭候光临 全家共享",
    "when": "新品上市 春季上新 夏季特惠 秋冬新款 周末活动 本月推荐 店庆活动 限时折扣 开学季 年中特卖 换季优惠 会员日 "
            "新店开业 节日特惠 假日专享 月末特价",
    "price": "九折起 满百减十 第二件半价 八五折 买二送一 会员价 低至七折 送小礼品 立减二十元 两件八折 包邮到家 积分加倍 "
             "满减优惠 老客九五折 组合更省",
    "shop": "本店 我们 社区门店 旗舰店 直营店 工厂店 老字号 街角小店 城东店 专营店 体验店 品牌馆 邻里小铺",
    "calm": "请勿相信夸大宣传 效果因人而异 本品不能代替药物 理性消费 详情以店内公示为准 第一时间发货 图片仅供参考 定期体检关爱健康 "
            "数量有限请提前预订 最终解释以公示为准 请阅读说明后使用 健康生活从运动开始 多喝水早睡觉",
    "ill": "高血压 糖尿病 颈椎病 关节炎 失眠 胃病 风湿 近视 脱发 痛风 哮喘 鼻炎 肝病 癌症 皮肤病 心脏病 腰椎病 肾虚 偏头痛 白癜风 "
           "脂肪肝 冠心病 甲亢 前列腺炎 灰指甲",
    "cure": "根治 治愈 彻底治好 药到病除 永不复发 治疗 完全康复 告别 消除 断根 治好",
    "fast": "三天 七天 一个疗程 一贴 两周 十天 当天 一盒 半个月 三盒 一晚",
    "secret": "祖传秘方 宫廷秘方 神奇膏药 纯中药 老中医秘方 特效药 民间偏方 神药 秘制药酒 家传膏方",
    "most": "全国第一 全网最低价 世界顶级 国家级品质 史上最强 独一无二 销量第一 全球领先 绝对正品 最佳品牌 顶级之选 行业第一 史无前例 "
            "万能 全球首发第一 排名第一 天下第一 至尊极品 遥遥领先全行业",
    "sure": "百分百有效 保证满意 永不损坏 零风险 绝无仅有 假一赔万 终身不坏 保证升值 百分百赚钱 绝对安全 无效全额赔 稳赚不赔 永久保值 "
            "绝不后悔 保证翻倍",
    "bait": "震惊 太可怕了 出大事了 速看 不敢相信 惊呆了 刚刚曝光 紧急通知 看哭了 内幕曝光 吓人 万万没想到 重大消息",
    "hook": "99%的人不知道 看完沉默了 真相竟然是这样 她居然这样做 结局出人意料 马上删除 不看后悔一辈子 所有人都看傻了 背后原因吓人 "
            "千万别告诉别人 原来一直被骗 这件事瞒不住了 没人敢说",
    "click": "点击领红包 点这里免费领 戳进来看 赶紧点开 手慢就没了快点 点开领现金 一键领取红包 点我有惊喜 马上点击 不点亏大了 速点链接 "
             "点一下领百元 快戳链接领取",
    "prize": "赢大奖 抽大奖 幸运抽奖 好运连连中奖 手气爆棚 赢取奖金 中奖不断 天天开奖 奖金等你拿 试试手气 大奖等你赢 次次有奖 好运翻倍 "
             "奖池累积 头奖诞生",
    "win": "人人有机会 今晚开奖 现场抽取 奖品丰富 百万奖池 万元大奖 即刻参与 马上揭晓 凭运气赢 欢乐不停 幸运就是你 赢了带走 每日三次 "
           "周周有大奖",
    "chips": "充值送筹码 押注即赢 下注翻倍 真人荷官 筹码秒到账 百家乐 德州扑克赢现金 线上赌场 首充送筹码 赢钱秒提现 老虎机爆奖 "
             "倍率翻番押大小 赌神争霸",
    "family": "家庭聚会 亲子互动 朋友聚会 儿童益智 周末娱乐 团建游戏 旅行休闲 全家同乐 聚会助兴 益智休闲 亲友欢聚",
    "game": "桌游 扑克牌玩具 益智桌游 棋牌玩具 亲子桌游 家庭游戏 休闲纸牌 骰子桌游 聚会游戏 儿童桌游 魔术道具",
    "nomoney": "益智娱乐 不涉金钱 健康娱乐 锻炼思维 规则简单 适合八岁以上 老少同玩 欢乐时光 附说明书 增进感情 禁止赌博",
    "e_good": "great quality,simple design,nice details,light and handy,well made,many colors,classic style,good value",
    "e_act": "visit our store,order today,now in stock,ask our staff,free delivery,come and see,open daily,easy returns",
    "e_when": "New arrival,Spring sale,Weekend offer,Season special,Store event,Member day,Fresh picks,Holiday sale",
    "e_price": "10% off,buy two get one,save 20 yuan,member price,15% off,half price on second,small gift included",
    "e_ill": "diabetes,cancer,insomnia,arthritis,high blood pressure,asthma,back pain,hair loss,heart disease",
    "e_cure": "cures,heals,completely removes,ends,fully treats,eliminates",
    "e_most": "No.1 in the world,the best ever,lowest price on earth,the only perfect one,world top quality,absolutely unbeatable",
    "e_sure": "100% guaranteed,never fails,zero risk,profit guaranteed,lasts forever,always works",
    "e_bait": "Shocking,Unbelievable,You won't believe it,Breaking,OMG,This is insane",
    "e_click": "click now,tap to get free cash,open before deleted,click to claim,tap here fast,hit the link now",
    "e_prize": "win big prizes,lucky draw tonight,jackpot awaits,spin and win,big prize pool,daily lucky draw",
    "e_family": "family night,party time,kids and parents,friends gathering,weekend fun,team building",
}

TEMPLATES = {
    "named": ["{when}{p}{price}，{act}", "{p}{good}，{act}", "{when} {p}{price}", "{shop}{p}{good}", "{p}{when}，{act}",
              "{good}的{p}，{price}", "{shop}{when}，{p}{act}", "{p} {price} {act}", "{p}，{good}，{price}",
              "这款{p}{good}", "{act}：{p}{price}", "{calm}，{p}{price}", "{p}{act}，{calm}",
              "挑{p}来{shop}，{price}", "{when}，买{p}{price}", "推荐{p}：{good}"],
    "plain": ["{when}，{good}，{act}", "{good}，{price}，{act}", "{shop}{when}，{price}", "{when}{price}，{act}",
              "{shop}{good}，{act}", "{price}，{act}", "{good}，{act}", "{when} {shop}{price}", "{act}，{calm}",
              "{when}，{calm}", "{shop}：{good}，{price}", "来{shop}，{good}{price}", "{when}：{good}，{calm}"],
    "medical": ["{secret}{cure}{ill}", "{fast}{cure}{ill}", "{ill}患者的福音，{fast}{cure}", "{p}{cure}{ill}，{fast}见效",
                "{secret}，{fast}{cure}{ill}", "{when}：{secret}{cure}{ill}", "用{p}{fast}{cure}{ill}", "{cure}{ill}，{act}",
                "{ill}{fast}{cure}，{price}", "{shop}{secret}，{cure}{ill}", "{p}能{cure}{ill}", "{ill}不用愁，{secret}{cure}",
                "不打针不吃药，{fast}{cure}{ill}"],
    "false": ["{p}{most}，{sure}", "{most}，{act}", "{p}{sure}，{price}", "{shop}{p}{most}", "{when}{p}，{sure}", "{sure}，{act}",
              "{most}的{p}，{act}", "{p}，{good}，{most}", "{shop}{sure}，{price}", "{most}，{sure}", "{good}，{sure}",
              "{shop}承诺：{p}{sure}", "{p}就是{most}"],
    "clickbait": ["{bait}！{hook}", "{bait}！{p}{hook}", "{hook}，{click}", "{bait}！{click}", "{p}{click}", "{when}，{click}",
                  "{bait}，{p}{click}", "{hook}！{bait}", "买{p}的人{hook}", "{click}，{bait}", "{shop}{bait}，{hook}",
                  "{p}的秘密，{hook}", "{bait}！{hook}，{click}"],
    "prize": ["{prize}，{win}", "{when}{prize}，{win}", "{prize}，{act}", "{win}，{prize}", "{shop}{prize}，{win}", "{price}，{prize}",
              "{prize} {win}", "{when}，{win}，{prize}", "{win}！{prize}", "来{shop}{prize}，{act}", "{shop}：{win}，{prize}",
              "{prize}！{win}，{act}", "{when}来{shop}，{prize}"],
    "chips": ["{chips}，{prize}", "{chips}，{win}", "{when}{chips}", "{prize}，{chips}", "{act}：{chips}", "{win}！{chips}", "{chips}！{chips2}"],
    "family": ["{family}{game}，{nomoney}", "{game}{price}，{nomoney}", "{family}首选{game}", "{when}{game}，{family}",
               "{game}，{family}，{act}", "{nomoney}，{family}{game}", "{shop}{game}，{nomoney}", "{family}：{game}，{price}",
               "{game}：{family}，{nomoney}"],
    "e_named": ["{e_when}: {p} {e_price}", "{p}, {e_good}, {e_act}", "{e_when} {p}, {e_act}", "{p} {e_price}, {e_act}",
                "Our {p}: {e_good}"],
    "e_plain": ["{e_when}, {e_price}, {e_act}", "{e_good}, {e_act}", "{e_when}: {e_good}", "{e_price}, {e_act}", "Today: {e_price}"],
    "e_medical": ["{e_cure} {e_ill} in 3 days", "This {p} {e_cure} {e_ill}", "Secret herb {e_cure} {e_ill}",
                  "{e_ill}? Our pill {e_cure} it", "{e_cure} {e_ill}, {e_act}"],
    "e_false": ["{p} {e_most}, {e_sure}", "{e_most}, {e_act}", "{e_sure}, {e_price}", "{p}: {e_sure}", "{e_most} and {e_sure}"],
    "e_clickbait": ["{e_bait}! {e_click}", "{e_click}, {e_bait}!", "{e_bait}: {p}, {e_click}", "{e_bait}! What happened next",
                    "{e_click} or regret it"],
    "e_prize": ["{e_when}: {e_prize}", "{e_prize}, {e_act}", "{e_prize}, {e_price}", "{e_prize} now", "{e_when}, {e_prize}"],
    "e_family": ["{e_family} board game, {e_good}", "Board game for {e_family}", "{e_when}: board game, {e_family}",
                 "{e_family} card game for all ages, {e_act}"],
}
ENGLISH = 0.1

INDUSTRIES = "零售 电商 本地生活 连锁商超 批发 综合 百货 社区团购 线下门店 跨境电商"
OCR = "扫码关注 全场包邮 官方正品 图片仅供参考 营业时间9:00-21:00 地址见详情 客服在线 收藏有礼 限本店使用 新店 HOT NEW SALE 电话见店内 " \
      "每日更新 欢迎加盟 第二页"
OTHER_LICENCES = "营业执照 食品经营许可证 卫生许可证 道路运输许可证 出版物经营许可证"
LICENCES = {
    "alcohol": "酒类经营许可证 酒类零售许可证 酒类流通备案证 酒类批发许可证",
    "tobacco": "烟草专卖零售许可证 烟草零售许可证 烟草专卖许可证",
}


def split_list(items):
    """(seen, unseen): the last quarter of a list with four or more items is held out."""
    held = max(1, len(items) // 4) if len(items) >= 4 else 0
    return (items[:-held], items[-held:]) if held else (items, items)


def parse(key, value):
    return value.split(",") if key.startswith("e_") else value.split()


POOLS = {k: split_list(parse(k, v)) for k, v in LISTS.items()}
POOLS["chips2"] = POOLS["chips"]
PATTERNS = {k: split_list(v) for k, v in TEMPLATES.items()}
NAMES = {k: split_list(v[0].split()) for k, v in PRODUCTS.items()}


def product_name(rng, key, unseen, english):
    """The canonical name in two of five, so that a caption's word and a copy's word meet often."""
    if english:
        return PRODUCTS[key][1]
    if not unseen and rng.random() < 0.4:
        return NAMES[key][0][0]
    return rng.choice(NAMES[key][unseen and rng.random() < 0.5])


def tidy(text):
    for a, b in (("，，", "，"), ("！！", "！"), ("  ", " ")):
        text = text.replace(a, b)
    return text.strip("，、 ")


def write(rng, kind, unseen, product=None, limit=28):
    """One line of copy of a kind; None for `product` leaves only templates that name none."""
    english = f"e_{kind}" in TEMPLATES and rng.random() < ENGLISH
    key = f"e_{kind}" if english else kind
    patterns = [t for t in PATTERNS[key][unseen] if product or "{p}" not in t] or \
               [t for t in TEMPLATES[key] if product or "{p}" not in t]
    for _ in range(50):
        slots = {k: rng.choice(v[unseen and rng.random() < 0.5]) for k, v in POOLS.items()}
        if product:
            slots["p"] = product_name(rng, product, unseen, english)
        text = tidy(rng.choice(patterns).format(**slots))
        if english:
            text = text[0].upper() + text[1:]
        if slots["chips"] != slots["chips2"] and 8 <= len(text) <= (60 if english else limit):
            return text
    return text


def neutral(rng, unseen, product):
    """The copy shared by every label that text must not decide."""
    return write(rng, "named" if product else "plain", unseen, product)


def number(rng):
    return "".join(rng.choice("0123456789") for _ in range(rng.choice([6, 7, 8])))


def licence(rng, key):
    return f"{rng.choice(LICENCES[key].split())}{number(rng)}"


def small_print(rng, other_licence=True):
    """Assist text that decides nothing: empty, industry, words read off the picture, or some other trade's licence."""
    draw = rng.random()
    if draw < 0.36:
        return ""
    if draw < 0.62:
        return f"行业:{rng.choice(INDUSTRIES.split())}"
    if draw < 0.82 or not other_licence:
        return rng.choice(OCR.split())
    if draw < 0.92:
        return f"{rng.choice(OTHER_LICENCES.split())}{number(rng)}"
    return f"行业:{rng.choice(INDUSTRIES.split())} {rng.choice(OCR.split())}"
