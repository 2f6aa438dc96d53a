"""Common English words of 3 to 14 letters, many with a letter that comes more than once.

What is asked of the model is drawn from these; training never sees any list of words.
"""

from __future__ import annotations

__all__ = ["WORDS"]

_TEXT = """
aardvark abracadabra accident accordion add adventure alabama alaska all alpaca ambitious anaconda
announcement ant apple archaeologist armadillo assassination assesses astronaut attitude available
avocado babble baby baggage banana bank barrel baseball bath battlement bear bee beef beehive
beekeeper beetle beginner belief bell bellflower berry better bicycle bikini bitter blessing
blizzard blossom blue bobbin bobsled bonnet book bookkeeper bookworm boot bottle bottom bowl
breeze bridge broccoli brother bubble bubblegum buffalo buffoon building bull bumblebee bunny bus
business butter buttercup butterfly button buzzard cabbage cactus calendar camera canal candle
cannon cannonball caravan carrot carry cassette cat caterpillar cattle ceiling celebration cellar
cello center cereal characteristic cheese cherry chess chicken child chocolate choose chromosome
church cinnamon circle circus classroom clever cliff clock clover cockatoo cocoa coconut cocoon
coffee collect college color colossal colour comma command committee common communication
concentration concern connect connection consonant constellation constitution continent convention
cook cookie copper corner corridor cotton cottontail cousin cranberry creek cricket crocodile
cross crow cuckoo cucumber current curtain dad daddy daffodil dandelion data daughter dazzle
decided deep deer definition degree dentist desert dessert detective diamond dictionary difference
difficult dinner disappointment dish divided doctor doll dollar donkey door drama drawer dream
dress drizzle dwarf dynasty eagle easy eddy eel eerie effective effervescence egg eggplant
electricity elephant eleven elsewhere embarrass embarrassment emerald encyclopedia energy engine
engineer enough entertainment envelope evening evergreen everywhere excellence excellent exercise
experience extraordinary eye eyeglasses eyelash family farmer feather february feed feel fence
fern ferry fiddle fifteen fire flamingo flannel floor fluffy fly foggy follow food foot football
fountain fox freedom freeze full funny furniture fuzzy galaxy gallery garage garden gentleman
geography gigantic giggle giggling ginger gingerbread giraffe glass glasses glove gobbledygook
goose gooseberry gorilla grammar grammatical grandfather grandmother grandparents grape grapefruit
grass grasshopper green greenhouse gypsy hall hammer hammock happen happily happiness happy
harbour hazelnut health hedge hedgehog heel height helicopter hello herring hill hippopotamus
hitchhike hitchhiker hodgepodge holiday hollow honeybee hook horror hospital hullabaloo
hummingbird hundred hurricane ice icicle igloo iguana illness imagination imitation inconvenience
independence individual indivisibility indivisible infinity inn inning innocent institute
institution intermittent international invisible ivory january jar jelly jellyfish jewel jungle
kangaroo keep kettle kickback kindergarten kingdom kitten kiwi knack knee knickknack knight koala
kookaburra ladder lamp language lantern lavender leaf leather lemonade lesson letter lettuce level
library lighthouse lily lion little llama locomotion lollipop lonely look luggage lullaby lunch
macaroni magazine mammal mammoth mango manning marigold marmalade marmot mathematics maximum
meanwhile medicine melon memory mermaid message midnight millennium million minimum mirror
mississippi mitten mnemonic mole moment monotonous moon moonlight moose morning moss mother
motorcycle mountain muffin mug multiplication mummy museum mushroom mystery narrow necessary
necklace needle nephew nest never nevertheless nine nineteen ninety noodle noon nose notebook
nothing oak oasis occasion occupy occur occurrence octopus office onion opera opossum opposite
orchestra orthodox otter oven paddle paint pajamas palace pancake panda panorama papaya paper
paprika parachute paradise paragraph parallel parrot parsley passenger pasta peace peacock pear
pebble penguin pennant pepper peppermint pepperoni perseverance pet philippines photosynthesis
picnic pie pillow pin pineapple pioneer pipeline pizza pizzazz playground pocket pony pool popcorn
poppy porcupine porridge possess possession possessiveness potato potatoes potter pretty princess
professor programmer protocol pudding puddle puffin pumpkin puppet puppy purple purse puzzle
quarter queen queue quiet quizzes rabbit raccoon railroad rain raspberry razzmatazz receive
recommend recorder reference refrigerator refrigerators reindeer remember remembered reminiscence
responsibility restaurant retriever rhinoceros rhubarb rhythm ribbon rice riddle river robot
robotic rocket rollercoaster roof room rooster root running saddle salad salamander salmon salsa
sassafras sausage savanna saxophone scarecrow school science scissors screen season seed senseless
senselessness sentence september seven seventeen seventeenth seventy shadow shampoo sheep shell
sheriff shop silly similar sister six skeleton skunk sleep sleepless sleeplessness sleeve slipper
slow smooth sneeze snowball snowman soap soccer son spaghetti sparrow spinach spoon squeeze
squirrel statement station statistics statuette steel stone stool strawberry street strong student
substitute substitution success suggest summer summertime sunny sunset surrender swallow swan
sweater sweet sweetheart sweetness swimming syllable synonym system tall tarantula tattletale
tattoo tattooed taxi teacher teeth telephone telescope television temperature tennessee tennis
tent theatre thimble thirteen thistle three thunderstorm ticket time toffee tomato tomorrow tomtom
toolbox tooth toothbrush tortoise tower tractor tradition traffic transportation treasure
treatment tree trolley trousers truck trumpet tumultuous tunnel turtle twelve twenty twin umbrella
unconscious understanding unforgettable unicorn universe unsuccessful unsuccessfully unusual
vaccine vacuum valley vanilla vegetable velvet village violet violin visibility vitamin volcano
volleyball voodoo wallflower warm warrior waterfall watermelon weather wedding week well whale
wheel wheelbarrow wheelchair whippersnapper white wigwam willow window winter wombat wood
woodpecker woolly worm wow writer year yearly yellow yesterday yesteryear zero zigzag zoo zoology
zucchini
"""

WORDS = tuple(_TEXT.split())
"""The words in alphabetical order."""
